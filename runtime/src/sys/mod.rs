//! Raw system calls that no safe library wraps: the only unsafe code of the runtime.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

pub mod bpf;
pub mod descriptors;
pub mod exec;
pub mod memory;
pub mod network;
pub mod perf;
pub mod programs;
pub mod signals;
pub mod terminal;
pub mod users;
