"""The pixels: an image comes in, its cutout goes out.

`workers.cutter` turns the bytes of one source into the bytes of its cutout; `workers.shard` does so for some items of
a batch, from the transient store and back into it. `workers.networks` holds the networks, `workers.pool` the actors.
"""
