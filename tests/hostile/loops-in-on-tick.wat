;; Never comes back from a tick.
;;| name = "loops-in-on-tick"
;;| version = "1"
;;| tick = "20ms"
(func (export "on-tick") (param i64) (loop $again (br $again)))
