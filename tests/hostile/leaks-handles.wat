;; Makes handles of one counter for as long as it gets some.
(import "metrics" "[constructor]counter" (func $counter (param i32 i32 i32 i32) (result i32)))
(data (i32.const 1024) "leak_total")
(func (export "on-batch") (param i32 i32)
    (loop $again
        (drop (call $counter (i32.const 1024) (i32.const 10) (i32.const 0) (i32.const 0)))
        (br $again)))
