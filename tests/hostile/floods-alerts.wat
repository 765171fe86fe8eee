;; A thousand alerts with each batch.
(import "alerts" "raise" (func $raise (param i32 i32 i32 i32 i32)))
(data (i32.const 1024) "\1b[31mfire")
(func (export "on-batch") (param i32 i32) (local $left i32)
    (local.set $left (i32.const 1000))
    (loop $again
        (call $raise (i32.const 2) (i32.const 1024) (i32.const 9) (i32.const 0) (i32.const 0))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
