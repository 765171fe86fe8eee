;; The default of its setting is not what it says that it is.
;;| name = "has-a-setting-of-another-type"
;;| version = "1"
;;| [[setting]]
;;| name = "most"
;;| type = "integer"
;;| doc = ""
;;| default = "many"
