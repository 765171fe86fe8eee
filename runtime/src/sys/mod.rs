//! Raw system calls that no safe library wraps, and compiled code: the only unsafe code of the runtime.
#![expect(unsafe_code, reason = "no safe library does this; each block says why it is sound")]

pub mod bpf;
pub mod code;
pub mod descriptors;
pub mod exec;
pub mod landlock;
pub mod memory;
pub mod network;
pub mod perf;
pub mod programs;
pub mod signals;
pub mod terminal;
pub mod users;
