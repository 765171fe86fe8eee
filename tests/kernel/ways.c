// System calls by other ways than libc takes: by the 32-bit table (int $0x80), and by io_uring.
// Usage: ways compat DIRECTORY | ways uring DIRECTORY PORT | ways uring-many DIRECTORY N
//        ways accept-many N (connects by libc, accepts by one request)
//        ways compat-connect ADDRESS PORT | ways uring-connect ADDRESS PORT (UDP)
//        ways sendmmsg ADDRESS OTHER PORT (one message to each, in one call)
//        ways files-full DIRECTORY N SAME | ways sockets-full N SAME: N operations of each kind by a ring
//        whose completions find no room; all known by the same number where SAME is 1
//        ways uring-waits FIFO USER: opens it as that user, says so, and ends when it is open
//        ways unreadable: calls by socketcall without arguments
//        ways compat-open PATH | ways uring-open PATH: opens it for reading, then for writing and truncated
// Prints what each call returned, one number a line.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Since Linux 5.19; not in all headers.
#ifndef IORING_ACCEPT_MULTISHOT
#define IORING_ACCEPT_MULTISHOT 1
#endif

static long int80(long number, long a, long b, long c, long d) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

static long said(long result) {
    printf("%ld\n", result);
    return result;
}

static void compat(const char *directory) {
    if (chdir(directory)) exit(1);
    // 32-bit calls take pointers of 32 bits.
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED) exit(1);
    char *one = strcpy(low, "one"), *two = strcpy(low + 64, "two"), *folder = strcpy(low + 128, "folder");
    for (int i = 0; i < 1000; i++) {
        int fd = int80(5, (long)one, O_CREAT | O_RDWR, 0600, 0);
        if (fd < 0) exit(1);
        close(fd);
    }
    said(int80(295, AT_FDCWD, (long)two, O_RDONLY, 0)); // openat
    said(int80(38, (long)one, (long)two, 0, 0));        // rename
    said(int80(10, (long)two, 0, 0, 0));                // unlink
    mkdir("folder", 0700);
    said(int80(40, (long)folder, 0, 0, 0)); // rmdir
    struct sockaddr_in *address = (void *)(low + 256);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    uint32_t *arguments = (void *)(low + 512);
    int listening = socket(AF_INET, SOCK_STREAM, 0), connecting = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof *address;
    if (bind(listening, (void *)address, length)) exit(1);
    arguments[0] = listening;
    arguments[1] = 5;
    said(int80(102, 4, (long)arguments, 0, 0)); // socketcall: listen
    if (getsockname(listening, (void *)address, &length)) exit(1);
    arguments[0] = connecting;
    arguments[1] = (uint32_t)(uintptr_t)address;
    arguments[2] = length;
    said(int80(102, 3, (long)arguments, 0, 0)); // socketcall: connect
    said(int80(364, listening, 0, 0, 0));       // accept4
}

struct ring {
    int fd;
    struct io_uring_params parameters;
    char *submission, *completion;
    struct io_uring_sqe *entries;
};

static struct ring ring_of(unsigned entries) {
    struct ring ring = {0};
    ring.fd = syscall(SYS_io_uring_setup, entries, &ring.parameters);
    if (ring.fd < 0) {
        perror("io_uring_setup");
        exit(77);
    }
    struct io_uring_params *p = &ring.parameters;
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    ring.submission = mmap(NULL, p->sq_off.array + p->sq_entries * 4, protection, flags, ring.fd, IORING_OFF_SQ_RING);
    ring.completion = mmap(NULL, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe), protection, flags,
                           ring.fd, IORING_OFF_CQ_RING);
    ring.entries = mmap(NULL, p->sq_entries * sizeof(struct io_uring_sqe), protection, flags, ring.fd, IORING_OFF_SQES);
    return ring;
}

static struct ring ring(void) { return ring_of(8); }

// Waits for a completion and returns its result.
static int completed(struct ring *ring) {
    struct io_uring_params *p = &ring->parameters;
    if (syscall(SYS_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) exit(1);
    unsigned *head = (void *)(ring->completion + p->cq_off.head);
    struct io_uring_cqe *cqes = (void *)(ring->completion + p->cq_off.cqes);
    int result = cqes[*head & (p->cq_entries - 1)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

// Submits one operation.
static void begin(struct ring *ring, struct io_uring_sqe entry) {
    struct io_uring_params *p = &ring->parameters;
    unsigned *tail = (void *)(ring->submission + p->sq_off.tail), *array = (void *)(ring->submission + p->sq_off.array);
    unsigned index = *tail & (p->sq_entries - 1);
    ring->entries[index] = entry;
    array[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) != 1) exit(1);
}

// Submits one operation, waits for it, and returns its result.
static int submit(struct ring *ring, struct io_uring_sqe entry) {
    begin(ring, entry);
    return completed(ring);
}

static struct io_uring_sqe entry(int operation, int fd, const void *address, uint64_t offset, uint32_t length, uint32_t flags) {
    return (struct io_uring_sqe){
        .opcode = operation, .fd = fd, .addr = (uintptr_t)address, .off = offset, .len = length, .rw_flags = flags};
}

static void uring(const char *directory, int port) {
    struct ring ring_ = ring(), *r = &ring_;
    int at = open(directory, O_DIRECTORY | O_PATH);
    said(submit(r, entry(IORING_OP_OPENAT, at, "one", 0, 0640, O_CREAT | O_RDWR)));
    said(submit(r, entry(IORING_OP_OPENAT, at, "missing", 0, 0, O_RDONLY)));
    said(submit(r, entry(IORING_OP_RENAMEAT, at, "one", (uintptr_t) "two", at, 0)));
    said(submit(r, entry(IORING_OP_UNLINKAT, at, "two", 0, 0, 0)));
    said(submit(r, entry(IORING_OP_UNLINKAT, at, "two", 0, 0, 0)));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int connecting = socket(AF_INET, SOCK_STREAM, 0);
    said(submit(r, entry(IORING_OP_CONNECT, connecting, &address, sizeof address, 0, 0)));
    address.sin_port = htons(1);
    int refused = socket(AF_INET, SOCK_STREAM, 0);
    said(submit(r, entry(IORING_OP_CONNECT, refused, &address, sizeof address, 0, 0)));
    address.sin_port = 0;
    int listening = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof address;
    if (bind(listening, (void *)&address, length) || listen(listening, 5)) exit(1);
    if (getsockname(listening, (void *)&address, &length) || connect(other, (void *)&address, length)) exit(1);
    said(submit(r, entry(IORING_OP_ACCEPT, listening, NULL, 0, 0, 0)));
}

static void uring_many(const char *directory, int count) {
    struct ring ring_ = ring(), *r = &ring_;
    int at = open(directory, O_DIRECTORY | O_PATH);
    for (int i = 0; i < count; i++) {
        int fd = submit(r, entry(IORING_OP_OPENAT, at, "many", 0, 0600, O_CREAT | O_RDWR));
        if (fd < 0) exit(1);
        close(fd);
    }
}

static void accept_many(int count) {
    struct ring ring_ = ring(), *r = &ring_;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM, 0), connecting[64];
    socklen_t length = sizeof address;
    if (bind(listening, (void *)&address, length) || listen(listening, count)) exit(1);
    if (getsockname(listening, (void *)&address, &length)) exit(1);
    struct io_uring_sqe accepting = entry(IORING_OP_ACCEPT, listening, NULL, 0, 0, 0);
    accepting.ioprio = IORING_ACCEPT_MULTISHOT;
    accepting.user_data = 7;
    connecting[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connecting[0], (void *)&address, length)) exit(1);
    said(submit(r, accepting));
    for (int i = 1; i < count; i++) {
        connecting[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connecting[i], (void *)&address, length)) exit(1);
        said(completed(r));
    }
}

static struct sockaddr_in inet(const char *text, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) exit(2);
    return address;
}

static void compat_connect(const char *text, int port) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED) exit(1);
    struct sockaddr_in *address = (void *)low;
    *address = inet(text, port);
    uint32_t *arguments = (void *)(low + 256);
    arguments[0] = socket(AF_INET, SOCK_DGRAM, 0);
    arguments[1] = (uint32_t)(uintptr_t)address;
    arguments[2] = sizeof *address;
    said(int80(102, 3, (long)arguments, 0, 0));                           // socketcall: connect
    said(int80(362, arguments[0], (long)address, sizeof *address, 0)); // connect
}

static void uring_connect(const char *text, int port) {
    struct ring ring_ = ring();
    struct sockaddr_in address = inet(text, port);
    struct io_uring_sqe connect = entry(IORING_OP_CONNECT, socket(AF_INET, SOCK_DGRAM, 0), &address, sizeof address, 0, 0);
    said(submit(&ring_, connect));
    connect.flags = IOSQE_ASYNC; // by one of the kernel's threads
    said(submit(&ring_, connect));
}

static void send_many(const char *one, const char *other, int port) {
    struct sockaddr_in addresses[2] = {inet(one, port), inet(other, port)};
    struct iovec vector = {.iov_base = "x", .iov_len = 1};
    struct mmsghdr messages[2] = {0};
    for (int i = 0; i < 2; i++)
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &addresses[i], .msg_namelen = sizeof addresses[i], .msg_iov = &vector, .msg_iovlen = 1};
    int sent = sendmmsg(socket(AF_INET, SOCK_DGRAM, 0), messages, 2, 0);
    said(sent < 0 ? -errno : sent);
}

// Opens, renames and removes files by a ring with room for two completions.
static void files_full(const char *directory, int count, int same) {
    struct ring ring_ = ring_of(1), *r = &ring_;
    int at = open(directory, O_DIRECTORY | O_PATH);
    char (*names)[3][32] = calloc(count, sizeof *names);
    for (int i = 0; i < count; i++) {
        snprintf(names[i][0], 32, "missing%d", i);
        snprintf(names[i][1], 32, "made%d", i);
        snprintf(names[i][2], 32, "moved%d", i);
    }
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < count; i++) {
            // Every third does not exist, and fails.
            char *name = names[i][i % 3 ? 1 : 0];
            struct io_uring_sqe one =
                step == 0   ? entry(IORING_OP_OPENAT, at, name, 0, 0600, i % 3 ? O_CREAT | O_WRONLY : O_RDONLY)
                : step == 1 ? entry(IORING_OP_RENAMEAT, at, name, (uintptr_t)names[i][2], at, 0)
                            : entry(IORING_OP_UNLINKAT, at, names[i][2], 0, 0, 0);
            one.user_data = same ? 5 : i;
            begin(r, one);
        }
        for (int i = 0; i < count; i++) said(completed(r));
    }
}

// Accepts and connects by a ring with room for two completions.
static void sockets_full(int count, int same) {
    struct ring ring_ = ring_of(1), *r = &ring_;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof address;
    if (bind(listening, (void *)&address, length) || listen(listening, count)) exit(1);
    if (getsockname(listening, (void *)&address, &length)) exit(1);
    for (int i = 0; i < count; i++) {
        struct io_uring_sqe one = entry(IORING_OP_ACCEPT, listening, NULL, 0, 0, 0);
        one.user_data = same ? 5 : i;
        begin(r, one);
    }
    for (int i = 0; i < count; i++) {
        if (connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&address, length)) exit(1);
    }
    for (int i = 0; i < count; i++) said(completed(r));
    address.sin_port = htons(1);
    for (int i = 0; i < count; i++) {
        struct io_uring_sqe one = entry(IORING_OP_CONNECT, socket(AF_INET, SOCK_STREAM, 0), &address, sizeof address, 0, 0);
        one.user_data = same ? 5 : i;
        begin(r, one);
    }
    for (int i = 0; i < count; i++) said(completed(r));
}

static void uring_waits(const char *fifo, int user) {
    struct ring ring_ = ring(), *r = &ring_;
    if (setresuid(user, user, user)) exit(1);
    struct io_uring_sqe one = entry(IORING_OP_OPENAT, AT_FDCWD, fifo, 0, 0, O_RDONLY);
    // Else it is tried with O_NONBLOCK first, and does not wait for who writes.
    one.flags = IOSQE_ASYNC;
    begin(r, one);
    said(0);
    fflush(stdout);
    said(completed(r));
}

static void unreadable(void) {
    said(int80(102, 3, 0, 0, 0)); // socketcall: connect
    said(int80(102, 4, 0, 0, 0)); // socketcall: listen
    said(int80(102, 5, 0, 0, 0)); // socketcall: accept
}

static void compat_open(const char *path) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED) exit(1);
    strncpy(low, path, 4095);
    said(int80(5, (long)low, O_RDONLY, 0, 0));
    said(int80(295, AT_FDCWD, (long)low, O_WRONLY | O_TRUNC, 0));
}

static void uring_open(const char *path) {
    struct ring ring_ = ring(), *r = &ring_;
    said(submit(r, entry(IORING_OP_OPENAT, AT_FDCWD, path, 0, 0, O_RDONLY)));
    said(submit(r, entry(IORING_OP_OPENAT, AT_FDCWD, path, 0, 0, O_WRONLY | O_TRUNC)));
    // By a worker of the kernel's, which acts for us.
    struct io_uring_sqe late = entry(IORING_OP_OPENAT, AT_FDCWD, path, 0, 0, O_RDONLY);
    late.flags = IOSQE_ASYNC;
    said(submit(r, late));
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "compat")) compat(arguments[2]);
    else if (count == 4 && !strcmp(arguments[1], "uring")) uring(arguments[2], atoi(arguments[3]));
    else if (count == 4 && !strcmp(arguments[1], "uring-many")) uring_many(arguments[2], atoi(arguments[3]));
    else if (count == 3 && !strcmp(arguments[1], "accept-many")) accept_many(atoi(arguments[2]));
    else if (count == 4 && !strcmp(arguments[1], "compat-connect")) compat_connect(arguments[2], atoi(arguments[3]));
    else if (count == 4 && !strcmp(arguments[1], "uring-connect")) uring_connect(arguments[2], atoi(arguments[3]));
    else if (count == 5 && !strcmp(arguments[1], "sendmmsg")) send_many(arguments[2], arguments[3], atoi(arguments[4]));
    else if (count == 5 && !strcmp(arguments[1], "files-full")) files_full(arguments[2], atoi(arguments[3]), atoi(arguments[4]));
    else if (count == 4 && !strcmp(arguments[1], "sockets-full")) sockets_full(atoi(arguments[2]), atoi(arguments[3]));
    else if (count == 4 && !strcmp(arguments[1], "uring-waits")) uring_waits(arguments[2], atoi(arguments[3]));
    else if (count == 2 && !strcmp(arguments[1], "unreadable")) unreadable();
    else if (count == 3 && !strcmp(arguments[1], "compat-open")) compat_open(arguments[2]);
    else if (count == 3 && !strcmp(arguments[1], "uring-open")) uring_open(arguments[2]);
    else return 2;
    return 0;
}
