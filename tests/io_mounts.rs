//! Mount points that a stranger has made as long as can be.

mod kernel;
#[path = "kernel/sums.rs"]
mod sums;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
};

use kernel::alone;
use sums::Agent;

/// In a mount namespace of its own: reads 100 times from a file at a mount point of so many folders, says how
/// long the longest line of its list of mounts is, and waits.
const DEEP: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, kind, flags):
    if libc.mount(source, b'.', kind, flags, None) != 0:
        raise OSError(ctypes.get_errno(), 'mount')
os.chdir(sys.argv[1])
mount(b'none', b'tmpfs', 0)
os.chdir(sys.argv[1])
for n in range(int(sys.argv[2])):
    os.mkdir('d' * 255)
    os.chdir('d' * 255)
mount(b'.', None, 4096)
os.chdir('..')
os.chdir('d' * 255)
file = os.open('file', os.O_CREAT | os.O_RDWR)
os.write(file, b'x')
for n in range(100): os.pread(file, 1, 0)
print(max(len(line) for line in open('/proc/self/mountinfo', 'rb')), flush=True)
sys.stdin.read()
";

#[test]
fn a_mount_point_that_is_longer_than_a_record_is_cut() {
    let Some(_guard) = alone() else { return };
    // Longer than a text, than the bit that says cut, and than a record.
    for folders in [20, 140, 260] {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start("io_stats");
        let plan = agent.plan(&["pid", "calls", "bytes", "operation", "mountpoint", "fstype"]);
        agent.want(&[&plan]);
        let member = agent.join(plan);
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .args([kernel::PYTHON, "-I", "-S", "-c", DEEP])
            .arg(folder.path())
            .arg(folders.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let longest: usize = said.trim().parse().expect("the mount is there");
        assert!(longest > folders * 256);
        agent.probes.aggregates().read_now();
        child.stdin.take().unwrap().flush().unwrap();
        output.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        let (rows, lost) = agent.end(&member);
        assert_eq!(lost, 0);
        let begin = format!("{}/ddd", folder.path().display());
        let of_file: Vec<_> = rows
            .with(&[("pid", &pid), ("operation", "read"), ("fstype", "tmpfs")])
            .filter(|row| row["mountpoint"].starts_with(&begin))
            .collect();
        let sum = |field: &str| -> u64 {
            of_file.iter().map(|row| row[field].parse::<u64>().unwrap()).sum()
        };
        assert_eq!((sum("calls"), sum("bytes")), (100, 100), "{folders} folders");
        assert!(of_file.iter().all(|row| row["mountpoint"].len() == 4096));
    }
}
