;; Never gives the host the memory that it asks for. Rows alone have the alignment 1, so that it takes
;; its settings.
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (if (i32.eq (local.get 2) (i32.const 1)) (then (loop $again (br $again))))
    i32.const 0x100000)
