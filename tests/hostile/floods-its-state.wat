;; Keeps 64 KiB more with each batch, each time under another key.
(import "state" "set" (func $set (param i32 i32 i32 i32 i64) (result i32)))
(global $n (mut i32) (i32.const 0x30303030))
(func (export "on-batch") (param i32 i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    ;; ASCII, and a new key each time.
    (i32.store (i32.const 1024) (i32.and (global.get $n) (i32.const 0x7f7f7f7f)))
    (drop (call $set (i32.const 1024) (i32.const 4) (i32.const 0x100000) (i32.const 0x10000) (i64.const 0))))
