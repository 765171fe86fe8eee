//! Bytes, calls and errors of files, against what fio, strace and the programs themselves say.

mod kernel;
#[path = "kernel/sums.rs"]
mod sums;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use kernel::{alone, here::skip, python};
use sums::{Agent, Rows};

const KIND: &str = "io_stats";
const FIELDS: [&str; 11] = [
    "pid",
    "comm",
    "calls",
    "bytes",
    "size_histogram",
    "mountpoint",
    "fstype",
    "errno",
    "operation",
    "path_class",
    "file",
];

/// What was counted while this ran, and what it returned.
fn during<T>(run: impl FnOnce() -> T) -> (Rows, T) {
    let mut agent = Agent::start(KIND);
    let plan = agent.plan(&FIELDS);
    agent.want(&[&plan]);
    let member = agent.join(plan);
    let result = run();
    let (rows, lost) = agent.end(&member);
    assert_eq!(lost, 0);
    (rows, result)
}

/// Runs a command that must succeed; its pid and what it printed.
fn run(command: &mut Command) -> (String, String) {
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (pid, String::from_utf8(output.stdout).unwrap())
}

/// Each way of reading and writing, and how often and how much: known by the script. The folder is its
/// argument.
const WAYS: &str = r"
import os, sys
os.chdir(sys.argv[1])
data = os.open('data', os.O_RDWR | os.O_CREAT)
for n in range(100): os.write(data, b'x' * 1000)
for n in range(50): os.pwrite(data, b'y' * 10, n)
os.writev(data, [b'a' * 100, b'b' * 200])
os.pwritev(data, [b'a' * 5], 7)
os.lseek(data, 0, 0)
while os.read(data, 4096): pass
for n in range(30): os.pread(data, 7, n)
os.preadv(data, [bytearray(11), bytearray(13)], 0)
os.lseek(data, 0, 0)
os.readv(data, [bytearray(50)])
out = os.open('out', os.O_RDWR | os.O_CREAT)
os.sendfile(out, data, 0, 1234)
os.copy_file_range(data, out, 4321, 0, 2000)
ends = os.pipe()
os.splice(data, ends[1], 3000, offset_src=0)
os.splice(ends[0], out, 3000)
os.set_blocking(ends[0], False)
for n in range(3):
    try: os.read(ends[0], 1)
    except BlockingIOError: pass
for n in range(4):
    try: os.write(9999, b'z')
    except OSError: pass
for n in range(6):
    try: os.read(os.open('.', os.O_RDONLY), 1)
    except IsADirectoryError: pass
";

#[test]
fn each_way_of_reading_and_writing_has_its_bytes_calls_and_errors() {
    let Some(_guard) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (rows, (pid, _)) = during(|| run(python(WAYS).arg(folder.path())));
    let found = |operation: &str, class: &str, file: &str, errno: &str| {
        let values = [
            ("pid", pid.as_str()),
            ("operation", operation),
            ("path_class", class),
            ("file", file),
            ("errno", errno),
        ];
        let histogram = rows.histogram("size_histogram", &values);
        (rows.sum("calls", &values), rows.sum("bytes", &values), histogram.iter().sum::<u64>())
    };
    assert_eq!(found("write", "syscall", "regular", "0"), (150, 100_500, 150));
    assert_eq!(found("write", "vector", "regular", "0"), (2, 305, 2));
    // 100,300 bytes by 4,096, the end of the file, and 30 times 7; what Python itself reads is more.
    let (calls, bytes, sized) = found("read", "syscall", "regular", "0");
    assert!(bytes >= 100_300 + 210 && calls >= 25 + 1 + 30 && sized < calls, "{calls} {bytes}");
    assert_eq!(found("read", "vector", "regular", "0"), (2, 74, 2));
    assert_eq!(found("read", "sendfile", "regular", "0"), (1, 1234, 1));
    assert_eq!(found("write", "sendfile", "regular", "0"), (1, 1234, 1));
    assert_eq!(found("read", "copy_range", "regular", "0"), (1, 4321, 1));
    assert_eq!(found("write", "copy_range", "regular", "0"), (1, 4321, 1));
    assert_eq!(found("read", "splice", "regular", "0"), (1, 3000, 1));
    assert_eq!(found("write", "splice", "pipe", "0"), (1, 3000, 1));
    assert_eq!(found("read", "splice", "pipe", "0"), (1, 3000, 1));
    assert_eq!(found("write", "splice", "regular", "0"), (1, 3000, 1));
    // EAGAIN, EBADF, EISDIR.
    assert_eq!(found("read", "syscall", "pipe", "11"), (3, 0, 0));
    assert_eq!(found("write", "syscall", "unknown", "9"), (4, 0, 0));
    assert_eq!(found("read", "syscall", "directory", "21"), (6, 0, 0));
    // 4,096 has 24 calls with all that was asked for.
    let of_reads = [("pid", pid.as_str()), ("operation", "read"), ("file", "regular")];
    assert!(rows.histogram("size_histogram", &of_reads)[12] >= 24);
}

/// Makes and removes, with errors; prints its pid.
const NAMES: &str = r"
import os, sys
os.chdir(sys.argv[1])
def attempt(call, *arguments):
    try: return call(*arguments)
    except OSError: pass
for n in range(20):
    os.mkdir(f'd{n}')
    attempt(os.mkdir, f'd{n}')
    os.close(os.open(f'd{n}/f', os.O_CREAT | os.O_WRONLY))
    attempt(os.rmdir, f'd{n}')
    attempt(os.open, 'nowhere', os.O_RDONLY)
for n in range(20):
    os.unlink(f'd{n}/f')
    attempt(os.unlink, f'd{n}/f')
    os.rmdir(f'd{n}')
print(os.getpid())
";

#[test]
fn calls_and_errors_are_those_that_strace_counts() {
    let Some(_guard) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(told.path());
    command.args([kernel::PYTHON, "-I", "-S", "-c", NAMES]).arg(folder.path());
    let (rows, (_, pid)) = during(|| run(&mut command));
    let pid = pid.trim();
    // time, seconds, us per call, calls, errors where there are any, name
    let mut strace: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in fs::read_to_string(told.path()).unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, calls, errors @ .., name] = &words[..]
            && let Ok(calls) = calls.parse()
        {
            let errors = errors.first().map_or(0, |errors| errors.parse().unwrap());
            strace.insert((*name).to_owned(), (calls, errors));
        }
    }
    let found = |operations: &[&str]| {
        let all = operations.iter().map(|operation| {
            let values = [("pid", pid), ("operation", operation), ("path_class", "syscall")];
            let good = rows.sum("calls", &[&values[..], &[("errno", "0")]].concat());
            let all = rows.sum("calls", &values);
            (all, all - good)
        });
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    assert_eq!(found(&["mkdir"]), strace["mkdir"]);
    assert_eq!(found(&["rmdir"]), strace["rmdir"]);
    assert_eq!(found(&["unlink"]), strace["unlink"]);
    assert_eq!(found(&["open", "create"]), strace["openat"]);
    assert_eq!(found(&["mkdir"]), (40, 20));
    assert_eq!(found(&["create"]), (20, 0));
}

#[test]
fn bytes_of_dd_cp_and_tar_are_those_of_their_files() {
    let Some(_guard) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("one"), vec![7; 3 << 20]).unwrap();
    let (rows, (dd, cp, tar)) = during(|| {
        let dd = run(Command::new("/bin/dd").args([
            &format!("if={}", at("one")),
            &format!("of={}", at("two")),
            "bs=64k",
            "status=none",
        ]));
        let cp = run(Command::new("/bin/cp").arg("--reflink=never").args([at("one"), at("three")]));
        let tar = run(Command::new("/bin/tar").args(["-cf", &at("four"), "-C", &at(""), "one"]));
        (dd.0, cp.0, tar.0)
    });
    let written =
        |pid: &str| rows.sum("bytes", &[("pid", pid), ("operation", "write"), ("file", "regular")]);
    let read =
        |pid: &str| rows.sum("bytes", &[("pid", pid), ("operation", "read"), ("file", "regular")]);
    assert_eq!(written(&dd), 3 << 20);
    assert_eq!(written(&cp), 3 << 20);
    assert_eq!(written(&tar), fs::metadata(at("four")).unwrap().len());
    // And what the loader reads of libraries.
    for pid in [&dd, &cp, &tar] {
        let extra = read(pid) - (3 << 20);
        assert!(extra < 64 << 10, "{extra}");
    }
}

/// fio on a file system that only its own mount namespace has, of a file that was there before. The mount is
/// known if a reading finds one of its processes: so they stay for a while.
fn fio(engine: &str, folder: &Path) -> Command {
    let script = "mount -t tmpfs none \"$1\" && cd \"$1\" && head -c 16M /dev/zero > data && \
                  read -r line < data; sleep 1; \
                  fio --name=job --filename=data --size=16M --bs=4k --rw=randrw --iodepth=8 \
                  --ioengine=\"$2\" --fallocate=none --thread=0 --output-format=json; sleep 1";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder).arg(engine);
    command
}

#[test]
fn bytes_and_calls_are_those_of_fio_and_unknown_where_they_cannot_be_known() {
    let Some(_guard) = alone() else { return };
    if Command::new("fio").arg("--version").output().is_err() {
        skip("the comparison with fio", "it is not installed");
        return;
    }
    for (engine, class) in [
        ("psync", "syscall"),
        ("pvsync2", "vector"),
        ("io_uring", "io_uring"),
        ("libaio", "aio"),
        ("mmap", "mmap"),
    ] {
        if engine == "io_uring" && !kernel::sees_uring() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let (rows, (_, said)) = during(|| run(&mut fio(engine, folder.path())));
        let json = &said[said.find('{').unwrap()..];
        let said: serde_json::Value = serde_json::from_str(json).unwrap();
        let job = &said["jobs"][0];
        let point = folder.path().display().to_string();
        let on_data = |values: &[(&'static str, &'static str)]| {
            let all = [("comm", "fio"), ("path_class", class), ("errno", "0")];
            [&all[..], values].concat()
        };
        let at = [("mountpoint", point.as_str()), ("fstype", "tmpfs"), ("file", "regular")];
        for operation in ["read", "write"] {
            let (ios, bytes) = (&job[operation]["total_ios"], &job[operation]["io_bytes"]);
            assert!(ios.as_u64().unwrap() > 1_000);
            let values = [&on_data(&[("operation", operation)])[..], &at[..]].concat();
            let found = (rows.sum("calls", &values), rows.sum("bytes", &values));
            if ["aio", "mmap"].contains(&class) {
                assert_eq!(found, (0, 0), "{engine}");
            } else {
                assert_eq!(
                    found,
                    (ios.as_u64().unwrap(), bytes.as_u64().unwrap()),
                    "{engine} {operation}"
                );
            }
        }
        let unknown = |operation| {
            rows.with(&on_data(&[("operation", operation)])).cloned().collect::<Vec<_>>()
        };
        match class {
            "aio" => {
                let rows = unknown("submit");
                let sum: u64 = rows.iter().map(|row| row["calls"].parse::<u64>().unwrap()).sum();
                let ios = |operation: &str| job[operation]["total_ios"].as_u64().unwrap();
                assert_eq!(sum, ios("read") + ios("write"));
                assert!(rows.iter().all(|row| !row.contains_key("bytes")), "{rows:?}");
            }
            "mmap" => {
                let rows = unknown("map");
                assert!(rows.iter().any(|row| row.get("mountpoint") == Some(&point)), "{rows:?}");
                assert!(rows.iter().all(|row| !row.contains_key("bytes")), "{rows:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_nobody_wants_is_not_in_the_kernel() {
    let Some(_guard) = alone() else { return };
    let mut agent = Agent::start(KIND);
    let idle = kernel::bpf_descriptors();
    let plan = agent.plan(&["pid", "bytes"]);
    agent.want(&[&plan]);
    let (programs, maps) = (kernel::program_ids(), kernel::map_ids());
    let uring = usize::from(kernel::vm::release() >= (5, 19));
    assert_eq!(programs.len(), 4 + uring);
    agent.leave_nothing(&idle, &programs, &maps);
}

#[test]
fn the_shipped_policy_says_what_was_done_on_a_mount() {
    let Some(_guard) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("m");
    fs::create_dir(&mount).unwrap();
    let script = "mount -t tmpfs none \"$1\" && cd \"$1\" && exec 3>keep && \
                  dd if=/dev/zero of=data bs=4096 count=100 status=none && \
                  dd if=data of=/dev/null bs=1024 status=none; dd if=/dev/zero of=/dev/full \
                  bs=1 count=1 status=none; sleep 5";
    let said = sums::run_policy("io-monitor", "limits.series = 50_000\n", || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&mount);
        command.stderr(Stdio::null()).status().unwrap();
    });
    let point = mount.display().to_string();
    let value = |metric, op| {
        sums::value(&said, metric, &[("mountpoint", &point), ("fstype", "tmpfs"), ("op", op)])
    };
    assert_eq!(value("io_bytes_total", "write"), 409_600, "{said:?}");
    assert_eq!(value("io_bytes_total", "read"), 409_600);
    // And the end of the file.
    assert_eq!(value("io_requests_total", "read"), 401);
    assert_eq!(value("io_requests_total", "create"), 2);
    assert_eq!(value("io_errors_total", "read"), 0);
    assert_eq!(sums::value(&said, "io_lost_total", &[]), 0);
}
