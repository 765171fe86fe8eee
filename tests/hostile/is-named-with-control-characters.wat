;; A name that would change the operator's terminal.
;;| name = "\u001b[31mgood\u0007"
;;| version = "1"
