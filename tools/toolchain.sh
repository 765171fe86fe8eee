# Sourced by the scripts beside it: versions that belong together, and what is there of them.
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
llvm=22
bpf_linker=0.13.0

sysroot() { rustc --print sysroot 2>/dev/null; }
has_rust_src() { [ -f "$(sysroot)/lib/rustlib/src/rust/library/core/Cargo.toml" ]; }
has_wasm_target() { [ -d "$(sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]; }
