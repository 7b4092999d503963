"""rembg's side of `bench/quality.py`: its own cutout functions on a given photo and mask. One request a line."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
from PIL import Image
from rembg.bg import alpha_matting_cutout, decontaminate_cutout, naive_cutout

WAYS = {
    "default": naive_cutout,
    "decontaminate": decontaminate_cutout,
    "alpha matting": lambda photo, mask: alpha_matting_cutout(photo, mask, 240, 10, 10),
}

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print goes to stderr
print("ready", file=answers, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    photo = Image.open(request["photo"]).convert("RGB")
    # As rembg's sessions do it: the network's mask to the photo's size by Lanczos.
    mask = Image.open(request["mask"]).convert("L").resize(photo.size, Image.Resampling.LANCZOS)
    spent = {}
    for way, cutout in WAYS.items():
        began = time.process_time()
        made = np.asarray(cutout(photo, mask).convert("RGBA"))
        spent[way] = (time.process_time() - began) * 1e3
        np.save(request["to"] + f"/{way}.npy", made)
    print(json.dumps(spent), file=answers, flush=True)
