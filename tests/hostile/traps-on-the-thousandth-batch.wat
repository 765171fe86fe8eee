;; Traps with every thousandth batch.
(global $batches (mut i32) (i32.const 0))
(func (export "on-batch") (param i32 i32)
    (global.set $batches (i32.add (global.get $batches) (i32.const 1)))
    (if (i32.eq (global.get $batches) (i32.const 1000)) (then unreachable)))
