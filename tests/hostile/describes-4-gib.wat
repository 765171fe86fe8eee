;; Its manifest is said to be as long as a length can be.
(data (i32.const 1024) "\00\00\00\00\ff\ff\ff\ff")
(func (export "describe") (result i32) i32.const 1024)
