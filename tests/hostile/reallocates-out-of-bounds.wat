;; Tells the host to write rows where there is no memory.
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (if (i32.eq (local.get 2) (i32.const 1)) (then (return (i32.const -16))))
    i32.const 0x100000)
