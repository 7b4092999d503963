"""The networks that can segment, and the files their weights come in.

`registry.find_network` knows them by name, `weights` reads and checks a file, `u2net` is the one family built here.
"""
