;; A million labels that are the same two kilobytes: four gigabytes, if someone copied them all.
(import "alerts" "raise" (func $raise (param i32 i32 i32 i32 i32)))
(func (export "on-batch") (param i32 i32) (local $at i32)
    (memory.fill (i32.const 1024) (i32.const 0x78) (i32.const 2048))
    (drop (memory.grow (i32.const 256)))
    (local.set $at (i32.const 0x200000))
    (loop $again
        (i32.store (local.get $at) (i32.const 1024))
        (i32.store offset=4 (local.get $at) (i32.const 2048))
        (i32.store offset=8 (local.get $at) (i32.const 1024))
        (i32.store offset=12 (local.get $at) (i32.const 2048))
        (local.set $at (i32.add (local.get $at) (i32.const 16)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 0x1200000))))
    (call $raise (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 0x200000) (i32.const 1000000)))
