"""A process that makes small pictures and can do nothing else, so that a hostile photo finds nothing to take in it.

The portal holds secrets, which workers do not, so it decodes no photo itself: it starts this with an empty environment.
Once its decoders are loaded, the process can open no file and no connection any more.

    asked on stdin    a line of JSON: {"of": "photo" | "cutout", "format", "pixels", "bytes", "size"}; `size` bytes
    told on stdout    8 bytes of length and as many of WebP; a length of 0 when there is no picture
"""

from __future__ import annotations

import io
import json
import resource
import sys
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from schemas.errors import ItemError
from schemas.options import Format
from store.no_core_dumps import forbid_core_dumps
from workers.decode import FORMATS, Limits
from workers.preview import of_cutout, of_photo

MOST_MEMORY = 6 * 2**30
_OPEN_NOW = 3  # in, out, errors


def main() -> None:
    """Answer until the other side hangs up."""
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    _load_decoders()
    _give_up_the_rest()
    while line := asked.readline():
        wanted = json.loads(line)
        file, limits = asked.read(wanted["size"]), Limits(pixels=wanted["pixels"], bytes=wanted["bytes"])
        try:
            made = (
                of_photo(file, limits) if wanted["of"] == "photo" else of_cutout(file, Format(wanted["format"]), limits)
            )
        except (ItemError, MemoryError, BadZipFile):
            made = b""
        told.write(len(made).to_bytes(8, "big") + made)
        told.flush()


def _load_decoders() -> None:
    Image.init()
    tiny = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for kind in FORMATS:
        file = io.BytesIO()
        tiny.save(file, kind)
        of_photo(file.getvalue(), Limits(pixels=64, bytes=100_000))


def _give_up_the_rest() -> None:
    forbid_core_dumps()
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_NOW, _OPEN_NOW))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


if __name__ == "__main__":
    main()
