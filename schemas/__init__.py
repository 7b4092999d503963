"""What crosses a boundary: batch, options, item result, consent event, candidate, receipt.

Pure: frozen records and the functions between them. Nothing here opens a file, a socket or a clock.
"""
