;; Makes series without an end: a hundred with each batch, each with a label of its own, and drops the
;; handles.
(import "metrics" "[constructor]counter" (func $counter (param i32 i32 i32 i32) (result i32)))
(import "metrics" "[method]counter.add" (func $add (param i32 i64)))
(import "metrics" "[resource-drop]counter" (func $drop (param i32)))
(data (i32.const 1024) "flood_total")
(data (i32.const 1040) "n")
;; A list of one label: n = the eight bytes at 1096.
(data (i32.const 1064) "\10\04\00\00\01\00\00\00\48\04\00\00\08\00\00\00")
(data (i32.const 1096) "00000000")
(global $n (mut i64) (i64.const 0))
(func (export "on-batch") (param i32 i32) (local $left i32) (local $handle i32)
    (local.set $left (i32.const 100))
    (loop $again
        (global.set $n (i64.add (global.get $n) (i64.const 1)))
        ;; Six bits a byte, each a printable character.
        (i64.store (i32.const 1096) (i64.add (i64.const 0x3030303030303030)
            (i64.or (i64.and (global.get $n) (i64.const 0x3f))
            (i64.or (i64.shl (i64.and (global.get $n) (i64.const 0xfc0)) (i64.const 2))
                (i64.shl (i64.and (global.get $n) (i64.const 0x3f000)) (i64.const 4))))))
        (local.set $handle
            (call $counter (i32.const 1024) (i32.const 11) (i32.const 1064) (i32.const 1)))
        (call $add (local.get $handle) (i64.const 1))
        (call $drop (local.get $handle))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
