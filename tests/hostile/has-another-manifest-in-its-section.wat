;; Shows `inspect` another manifest than it tells.
(@custom "tipstaff:manifest" "name = \"harmless\"\nversion = \"1\"\n")
