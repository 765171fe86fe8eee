//! What is different in a VM of `make test-vm`: its processor is emulated, and some 20 times slower
//! than a real one.
#![allow(dead_code, reason = "each test program uses some of it")]

/// Whether this runs in such a VM.
pub fn emulated() -> bool {
    machine().is_some()
}

/// Which of the machines of `tools/vm/init` this is, if it is one.
pub fn machine() -> Option<String> {
    std::env::var("TIPSTAFF_MACHINE").ok()
}

/// How often something is repeated that is repeated so many times on a real processor.
pub fn rounds(count: u32) -> u32 {
    if emulated() { count.div_ceil(10) } else { count }
}

/// Major and minor number of the running kernel.
pub fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
