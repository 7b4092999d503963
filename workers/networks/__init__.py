"""The networks that can segment, and the files their weights come in.

`registry.find_network` knows them by name, `weights_file` finds what to load, `weights` reads and checks it, `u2net` is
the one family built here.
"""
