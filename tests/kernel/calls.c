// Makes a known number of system calls.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long calls;

static void *getppids(void *unused)
{
	(void)unused;
	for (long i = 0; i < calls; i++)
		getppid();
	return NULL;
}

int main(int argc, char **argv)
{
	// getppid THREADS CALLS: so many calls in each thread
	if (argc == 4 && !strcmp(argv[1], "getppid")) {
		int threads = atoi(argv[2]);
		pthread_t thread[64];
		calls = atol(argv[3]);
		for (int i = 1; i < threads; i++)
			if (pthread_create(&thread[i], NULL, getppids, NULL))
				return 1;
		getppids(NULL);
		for (int i = 1; i < threads; i++)
			pthread_join(thread[i], NULL);
		return 0;
	}
	// numbers PROCESSES FIRST END TIMES: each call that does not exist, so many times
	if (argc == 6 && !strcmp(argv[1], "numbers")) {
		int processes = atoi(argv[2]);
		for (int p = 0; p < processes; p++) {
			if (fork() == 0) {
				for (int t = 0; t < atoi(argv[5]); t++)
					for (int n = atoi(argv[3]); n < atoi(argv[4]); n++)
						syscall(n);
				_exit(0);
			}
		}
		while (wait(NULL) > 0)
			;
		return 0;
	}
	// int80 CALLS: getppid by the 32-bit table
	if (argc == 3 && !strcmp(argv[1], "int80")) {
		for (long i = 0; i < atol(argv[2]); i++) {
			long result = 64;
			__asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
		}
		return 0;
	}
	fprintf(stderr, "calls: unknown arguments\n");
	return 2;
}
