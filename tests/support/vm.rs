//! What is different in a VM of `make test-vm`: its processor is emulated, and some 20 times slower
//! than a real one.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::path::{Path, PathBuf};

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

/// Limits of policies as a section of a configuration: what one may do in one call on a real processor is
/// too little on an emulated one.
pub fn limits() -> &'static str {
    if emulated() {
        "[limits]\ncpu_per_call = \"5s\"\nstart_up = \"5s\"\ncpu_percent = 100\n"
    } else {
        ""
    }
}

/// Where compiled policies are kept by a test that has this folder: in a VM, where compiling takes
/// seconds and nobody else is, by all tests in one place.
pub fn cache(own: &Path) -> PathBuf {
    if emulated() { "/var/cache/tests".into() } else { own.join("cache") }
}

/// Major and minor number of the running kernel.
pub fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
