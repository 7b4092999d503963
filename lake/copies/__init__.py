"""Copies of candidates that leave the lake: what goes into them, what their files look like, what stands beside them.

Pure, up to `lake.pull` and `lake.verify`, which read and write. No file of a copy mixes two grants, so taking back is
deleting whole files there, too.
"""
