"""The REST API, for programs with a key. `keys` says who calls; nothing in here can grant."""
