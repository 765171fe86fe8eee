;; A name that would be a place outside of a directory.
;;| name = "../../etc/cron.d/x"
;;| version = "1"
