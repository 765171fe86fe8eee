;; Traps once in its life: what it keeps in the host tells it so.
(import "state" "add" (func $add (param i32 i32 i64 i64 i32)))
(data (i32.const 1024) "batches")
(func (export "on-batch") (param i32 i32)
    (call $add (i32.const 1024) (i32.const 7) (i64.const 1) (i64.const 0) (i32.const 2048))
    (if (i64.eq (i64.load (i32.const 2056)) (i64.const 1)) (then unreachable)))
