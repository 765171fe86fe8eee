;; Never comes back with a batch.
(func (export "on-batch") (param i32 i32) (loop $again (br $again)))
