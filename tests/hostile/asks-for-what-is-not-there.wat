;; Needs a field that no event has.
;;| name = "asks-for-what-is-not-there"
;;| version = "1"
;;| [[subscribe]]
;;| event = "unlink"
;;| fields = ["path_givn:text"]
