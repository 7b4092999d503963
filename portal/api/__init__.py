"""The REST API, for programs with a key and our own pages' scripts. `sender` says who asks; nothing here can grant."""
