"""`slm-runtime fetch` of many files from nginx, against curl one after the other and sha256sum."""
