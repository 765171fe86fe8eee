;; A list of labels as long as a length can be.
(import "alerts" "raise" (func $raise (param i32 i32 i32 i32 i32)))
(func (export "on-batch") (param i32 i32)
    (call $raise (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const -1)))
