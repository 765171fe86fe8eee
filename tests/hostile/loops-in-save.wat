;; Never hands over its state, so that the next generation would never begin.
(func (export "save") (result i32) (loop $again (br $again)) i32.const 8)
(func (export "restore") (param i32 i32) (result i32) i32.const 1024)
