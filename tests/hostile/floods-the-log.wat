;; A thousand lines with each batch, each of which would forge another one.
(import "log" "line" (func $line (param i32 i32 i32)))
(data (i32.const 1024) "a line\0aERROR the disk is on fire")
(func (export "on-batch") (param i32 i32) (local $left i32)
    (local.set $left (i32.const 1000))
    (loop $again
        (call $line (i32.const 0) (i32.const 1024) (i32.const 32))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
