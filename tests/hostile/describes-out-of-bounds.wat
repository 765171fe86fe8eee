;; Not even the place where it says where its manifest is lies in its memory.
(func (export "describe") (result i32) i32.const -4)
