;; Takes more table elements, which cost the host memory that is no linear memory.
(table $t 1 funcref)
(func (export "on-batch") (param i32 i32)
    (loop $again
        (drop (table.grow $t (ref.null func) (i32.const 10000)))
        (br $again)))
