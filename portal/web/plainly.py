"""What the pages say in plain words: what a batch was asked for, why to look at a cutout, when a schedule runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from schemas.options import Channels, CutoutOptions, Format, Size

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "empty_mask": "No subject was found, so the cutout is empty.",
        "full_mask": "Nearly the whole photo was taken for the subject.",
        "cut_by_frame": "The subject reaches the edge of the photo and is cut off there.",
        "many_pieces": "The subject came out in several separate pieces.",
        "uncertain_edge": "It was hard to tell where the subject ends.",
        "blurred": "The photo is not sharp.",
        "dark": "The photo is very dark.",
        "overexposed": "The photo is very bright.",
        "not_consistent": "It could not be set like the others of its folder.",
    }
)
"""Flag -> a sentence. `docs/pixels.md` lists them."""


def asked_for(options: CutoutOptions) -> str:
    """What is to come out, as the upload page puts it: `JPEG, on white, with a soft shadow`."""
    said = [_file(options)]
    if options.bg_color is not None:
        said.append(f"on {options.bg_color}")
    if options.bg_image is not None:
        said.append(f"on {options.bg_image}")
    if options.crop:
        said.append(f"cropped to the subject with {options.crop_margin} around it")
    if options.consistent:
        said.append("of the same height and on the same line in each photo")
    if options.size not in (Size.FULL, Size.AUTO):
        said.append(f"of {options.size.max_pixels / 1e6:g} megapixels at most")
    if options.shadow:
        said.append("with a soft shadow")
    if options.refine:
        said.append("with finer edges")
    if options.despill:
        said.append("without the old background's colour in soft edges")
    return ", ".join(said)


def _file(options: CutoutOptions) -> str:
    if options.format is Format.ZIP:
        return "the photo as it came and its mask, in a zip each"
    name = {Format.JPG: "JPEG", Format.WEBP: "WebP", Format.JXL: "JPEG XL"}.get(options.format, "PNG")
    if options.channels is Channels.ALPHA:
        return f"the mask alone as {name}"
    is_clear = options.background is None and options.bg_image is None
    return f"{name}, transparent" if is_clear else name


_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PLAIN = re.compile(r"(\d{1,2}) (\d{1,2}) \* \* (?:(\*)|([0-7])(?:-([0-7]))?)")
"""Minute and hour of every day, of one day of the week, or of several from one to another."""


def when(cron: str) -> str | None:
    """`0 2 * * 1-5` -> `Monday to Friday at 02:00`. None for a line that is not so plain: it is shown as it is."""
    found = _PLAIN.fullmatch(" ".join(cron.split()))
    if found is None:
        return None
    minute, hour, every, first, last = found.groups()
    days = "every day" if every else f"every {_DAYS[int(first)]}"
    if last is not None:
        if not 0 < int(last) - int(first) < 7:  # one day, or all of them
            return None
        days = f"{_DAYS[int(first)]} to {_DAYS[int(last)]}"
    return f"{days} at {int(hour):02d}:{int(minute):02d}"
