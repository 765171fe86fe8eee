;; Its manifest is not UTF-8.
(data (i32.const 1024) "\10\04\00\00\04\00\00\00")
(data (i32.const 1040) "\ff\fe\c0\80")
(func (export "describe") (result i32) i32.const 1024)
