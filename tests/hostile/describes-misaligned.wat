;; What it returns is not where the contract allows it.
(func (export "describe") (result i32) i32.const 6)
