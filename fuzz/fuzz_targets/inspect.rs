//! Files that someone takes for policies.
#![no_main]

#[path = "../targets.rs"]
mod targets;

use std::panic;

libfuzzer_sys::fuzz_target!(
    // libFuzzer's hook aborts at each panic, also at those of `wit-component` that are caught.
    init: drop(panic::take_hook()),
    |bytes: &[u8]| targets::target("inspect")(bytes)
);
