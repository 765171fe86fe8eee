;; A label with a value that no monitoring system would store.
(import "metrics" "[constructor]counter" (func $counter (param i32 i32 i32 i32) (result i32)))
(import "metrics" "[method]counter.add" (func $add (param i32 i64)))
(data (i32.const 1024) "long_total")
(data (i32.const 1040) "label")
(data (i32.const 1064) "\10\04\00\00\05\00\00\00\00\00\10\00\00\00\08\00")
(func (export "on-batch") (param i32 i32)
    (memory.fill (i32.const 0x100000) (i32.const 0x78) (i32.const 0x80000))
    (call $add
        (call $counter (i32.const 1024) (i32.const 10) (i32.const 1064) (i32.const 1))
        (i64.const 1)))
