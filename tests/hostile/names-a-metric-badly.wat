;; A metric's name that would forge a line of the exposition.
(import "metrics" "[constructor]counter" (func $counter (param i32 i32 i32 i32) (result i32)))
(data (i32.const 1024) "a 1\0atipstaff_traps_total")
(func (export "on-batch") (param i32 i32)
    (drop (call $counter (i32.const 1024) (i32.const 24) (i32.const 0) (i32.const 0))))
