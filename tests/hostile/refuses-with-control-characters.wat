;; Refuses its settings with a message that would clear the operator's terminal and forge a line.
(data (i32.const 1024) "\01\00\00\00\10\04\00\00\19\00\00\00")
(data (i32.const 1040) "\1b[2J\0aINFO all is well \07\c2\9b")
(func (export "configure") (param i32 i32) (result i32) i32.const 1024)
