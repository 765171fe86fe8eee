//! What it costs to add up switches and I/O, beside bpftrace that is asked the same, in turn.

mod beside;

use std::{
    env,
    fs::File,
    hint::black_box,
    io::{Read, Write},
    os::unix::fs::FileExt as _,
    process::Command,
    thread,
    time::Instant,
};

use beside::{median, run, with_bpftrace, with_tipstaff};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Rounds, of which the median counts.
const ROUNDS: usize = 7;

/// bpftrace's runqlat.bt in nanoseconds.
const RUNQLAT: &str = "tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new \
     { @qtime[args->pid] = nsecs; } \
     tracepoint:sched:sched_switch { \
     if (args->prev_state == 0) { @qtime[args->prev_pid] = nsecs; } \
     $ns = @qtime[args->next_pid]; \
     if ($ns) { @all = hist(nsecs - $ns); } delete(@qtime[args->next_pid]); }";
/// Bytes by process.
const BYTES: &str = "tracepoint:syscalls:sys_exit_read, tracepoint:syscalls:sys_exit_pread64, \
     tracepoint:syscalls:sys_exit_write, tracepoint:syscalls:sys_exit_pwrite64 \
     /args->ret > 0/ { @[pid] = sum(args->ret); }";

const BY_MOUNT: &[&str] =
    &["pid", "mountpoint", "operation", "path_class", "errno", "calls", "bytes", "size_histogram"];

fn main() {
    match env::args().nth(1).as_deref() {
        Some("--switches") => return switches(),
        Some("--reads") => return reads(),
        Some("--fio") => return fio(),
        _ => {}
    }
    compare(
        "--switches",
        "a switch between two threads on one processor",
        "ns per switch",
        ("runqlat.bt", RUNQLAT),
        &[
            ("switches by process", "sched_stats", &["pid", "voluntary", "involuntary"]),
            (
                "run-queue latency by process",
                "sched_stats",
                &["pid", "runs", "queued", "queued_histogram"],
            ),
            (
                "all of it",
                "sched_stats",
                &[
                    "pid",
                    "voluntary",
                    "involuntary",
                    "migrations",
                    "runs",
                    "queued",
                    "blocked",
                    "queued_histogram",
                ],
            ),
        ],
    );
    compare(
        "--reads",
        "a pread64 of one byte",
        "ns per call",
        ("bytes by process", BYTES),
        &[
            ("bytes by process", "io_stats", &["pid", "bytes"]),
            ("by process, mount, operation, class, error", "io_stats", BY_MOUNT),
        ],
    );
    compare(
        "--fio",
        "fio, psync, 64 KiB, random reads of a cached file",
        "us per read",
        ("bytes by process", BYTES),
        &[
            ("bytes by process", "io_stats", &["pid", "bytes"]),
            ("by process, mount, operation, class, error", "io_stats", BY_MOUNT),
        ],
    );
}

/// Measures the work alone, beside bpftrace, and beside each of ours.
fn compare(
    work: &str,
    what: &str,
    unit: &str,
    theirs: (&str, &str),
    ways: &[(&str, &str, &[&str])],
) {
    let (mut alone, mut bpftraced) = (Vec::new(), Vec::new());
    let mut ours = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        alone.push(run(work));
        bpftraced.push(with_bpftrace(theirs.1, || run(work)));
        for ((_, kind, fields), times) in ways.iter().zip(&mut ours) {
            times.push(with_tipstaff(kind, fields, || run(work)));
        }
    }
    let alone = median(alone);
    let theirs_added = median(bpftraced) - alone;
    println!("\n{what}, alone: {alone:.1} {unit}\n");
    println!("| who adds up | adds, {unit} | of it alone | against bpftrace |");
    println!("|---|---|---|---|");
    let line = |who: &str, added: f64| {
        let (part, ratio) = (added / alone * 100.0, added / theirs_added);
        println!("| {who} | {added:.1} | {part:.1} % | {ratio:.2} |");
    };
    line(&format!("bpftrace, {}", theirs.0), theirs_added);
    for ((way, ..), times) in ways.iter().zip(ours) {
        line(&format!("tipstaff, {way}"), median(times) - alone);
    }
}

/// Two threads on one processor that wake each other.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit")]
fn switches() {
    const TURNS: u64 = 100_000;
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("processor 0");
    let (mut their_end, mut to_them) = std::io::pipe().expect("a pipe");
    let (mut our_end, mut to_us) = std::io::pipe().expect("a pipe");
    let other = thread::spawn(move || {
        let mut byte = [0];
        for _ in 0..TURNS {
            their_end.read_exact(&mut byte).expect("a byte");
            to_us.write_all(&byte).expect("a byte");
        }
    });
    let start = Instant::now();
    for _ in 0..TURNS {
        to_them.write_all(&[1]).expect("a byte");
        our_end.read_exact(&mut [0]).expect("a byte");
    }
    let took = start.elapsed();
    other.join().expect("no panic");
    println!("{}", took.as_nanos() as f64 / (2 * TURNS) as f64);
}

/// One byte at a time: nothing costs more for what it moves.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit")]
fn reads() {
    const CALLS: u64 = 2_000_000;
    let file = File::open(env::current_exe().expect("a path")).expect("our own file");
    let start = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let mut byte = [0];
    for at in 0..CALLS {
        file.read_at(&mut byte, black_box(at & 1023)).expect("a byte");
    }
    let end = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let took = (end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec;
    println!("{}", took as f64 / CALLS as f64);
}

/// The mean time of a read that fio measures.
fn fio() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::write(&data, vec![1; 64 << 20]).expect("a file");
    let output = Command::new("fio")
        .args(["--name=job", "--rw=randread", "--bs=64k", "--size=64M", "--loops=40"])
        .args(["--ioengine=psync", "--invalidate=0", "--output-format=json"])
        .arg(format!("--filename={}", data.display()))
        .output()
        .expect("fio is installed");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let read = &said["jobs"][0]["read"];
    let ms = read["runtime"].as_f64().expect("a time");
    println!("{}", ms * 1000.0 / read["total_ios"].as_f64().expect("a number"));
}
