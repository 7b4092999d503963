"""Plain words: each option that can be asked for shows, and each flag has its sentence."""

from __future__ import annotations

import re
from pathlib import Path

from portal.web.plainly import FLAGS, asked_for
from schemas.options import CutoutOptions, parse_options

DOCS = Path(__file__).parents[2] / "docs" / "pixels.md"


def test_what_was_asked_for_is_said_as_on_the_upload_page() -> None:
    assert asked_for(CutoutOptions()) == "PNG, transparent"
    asked = {"format": "jpg", "bg_color": "white", "crop": True, "crop_margin": "5%", "shadow": True}
    said = asked_for(parse_options(asked))
    assert said == "JPEG, on white, cropped to the subject with 5% around it, with a soft shadow"
    assert asked_for(parse_options({"format": "zip"})) == "the photo as it came and its mask, in a zip each"


OTHERS: dict[str, dict[str, object]] = {
    "format": {"format": "webp"},
    "channels": {"channels": "alpha"},
    "size": {"size": "hd"},
    "crop": {"crop": True},
    "crop_margin": {"crop": True, "crop_margin": "30px"},
    "bg_color": {"bg_color": "#e8eaed"},
    "bg_image": {"bg_image": "backdrops/wall.jpg"},
    "refine": {"refine": True},
    "despill": {"despill": True},
    "shadow": {"shadow": True},
    "consistent": {"consistent": True},
}


def test_no_option_goes_unsaid() -> None:
    assert set(OTHERS) == set(CutoutOptions.model_fields)
    said = {asked_for(parse_options(each)) for each in OTHERS.values()}
    assert len(said | {asked_for(CutoutOptions())}) == len(OTHERS) + 1


def test_every_flag_has_a_sentence() -> None:
    told = DOCS.read_text().partition("## Flags")[2].partition(": a person")[0]
    assert set(re.findall(r"`(\w+)`", told)) == set(FLAGS)
