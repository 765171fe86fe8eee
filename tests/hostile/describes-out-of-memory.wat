;; Its manifest lies behind the end of its memory.
(data (i32.const 1024) "\f0\ff\3f\00\00\01\00\00")
(func (export "describe") (result i32) i32.const 1024)
