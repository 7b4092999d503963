"""rembg's side of `bench/rembg.py`: runs in an environment of its own and answers one request a line.

A request is `{"photo": path, "kind": "png" | "jpg" | "mask" | …, "to": path of the file to write}`; the answer has the
CPU-ms of the whole call, and those inside onnxruntime.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

from PIL import Image
from rembg import new_session, remove

session = new_session("u2netp", providers=["CPUExecutionProvider"])
inner = session.inner_session
spent = [0.0]


class Timed:
    """onnxruntime's session, with its CPU time counted."""

    def run(self, *arguments: object) -> object:
        """Run, and count."""
        began = time.process_time()
        try:
            return inner.run(*arguments)
        finally:
            spent[0] += time.process_time() - began

    def __getattr__(self, name: str) -> object:
        return getattr(inner, name)


session.inner_session = Timed()


def call(kind: str, data: bytes) -> bytes:
    """What a user of rembg writes for this."""
    if kind == "png":
        return remove(data, session=session)
    if kind == "mask":
        return remove(data, session=session, only_mask=True)
    file = io.BytesIO()
    if kind == "jpg by bytes":
        white = remove(data, session=session, bgcolor=(255, 255, 255, 255))
        Image.open(io.BytesIO(white)).convert("RGB").save(file, "JPEG", quality=90)
        return file.getvalue()
    image = remove(Image.open(io.BytesIO(data)), session=session, bgcolor=(255, 255, 255, 255))
    image.convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    data = Path(request["photo"]).read_bytes()
    spent[0] = 0.0
    began = time.process_time()
    answer = call(request["kind"], data)
    whole = time.process_time() - began
    Path(request["to"]).write_bytes(answer)
    print(json.dumps({"whole": whole * 1e3, "network": spent[0] * 1e3}), flush=True)
