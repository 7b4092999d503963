"""Copies of candidates that leave the lake: what goes into them, what their files look like, what stands beside them.

Pure but for `stored`, which reads and writes. No file of a copy mixes two grants, so taking back is deleting whole
files there, too.
"""
