;; Its start function never ends, so that there is no instance.
(func $start (loop $again (br $again)))
(start $start)
