;; Traps with each batch that it gets.
(func $at-once unreachable)
(func (export "on-batch") (param i32 i32) (call $at-once))
