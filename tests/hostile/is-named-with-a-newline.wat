;; A name that would forge a line of the log.
;;| name = "good\nERROR"
;;| version = "1"
