"""What can be asked of a cutout: what it means, and what is refused, by name, before anything is sent."""

from __future__ import annotations

import pytest

from schemas.errors import BadOptions
from schemas.options import CutoutOptions, Format, Margin, Size, in_words, parse_options

NO_MARGIN = "crop_margin: A margin is one, two or four values of up to 500px or 50%, such as 30px or 10% 20%."
NO_PATH = "bg_image: bg_image is the relative path of one of the batch's own photos, such as backdrops/wall.jpg."
NO_COLOUR = "is no colour. Use a name (white), hex (fff, #81d4fa, 81d4fa77) or rgb(129, 212, 250)."
NO_MASK = "a mask has neither colours nor a background"
AS_IT_CAME = "a zip holds the photo as it came"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"format": "gif"}, "format: "),
        ({"shdow": True}, "shdow: "),
        *(
            ({"bg_color": colour}, f"bg_color: {colour!r} {NO_COLOUR}")
            for colour in ("ultrawhite", "", "ffff1", "rgb(256, 0, 0)", "rgb(101%, 0%, 0%)", "rgba(255, 0, 0, 300)")
        ),
        *(({"bg_color": hsl}, f"bg_color: {hsl!r} {NO_COLOUR}") for hsl in ("hsl(0, 200%, 50%)", "hsl(0, 200%, 10%)")),
        *(
            ({"crop": True, "crop_margin": margin}, NO_MARGIN)
            for margin in (
                "",
                "5",
                "-3px",
                "51%",
                "50.01%",
                "501px",
                "1px 501px",
                "1px 2px 3px",
                "1px and 2px",
                "1px 2px 3px 4px 5px",
            )
        ),
        *(
            ({"bg_image": path}, NO_PATH)
            for path in ("https://example.com/wall.jpg", "data:image/png;base64,AA", "", "p" * 1001, "half \ud800")
        ),
        ({"crop_margin": "10%"}, "crop_margin cannot go with crop=false: there is nothing for a margin to lie around."),
        *(
            ({"channels": "alpha", name: value}, f"{name} cannot go with channels=alpha: {NO_MASK}. Leave one out.")
            for name, value in (("bg_color", "white"), ("bg_image", "w.jpg"), ("despill", True), ("shadow", True))
        ),
        *(
            ({"format": "zip", name: True}, f"{name} cannot go with format=zip: {AS_IT_CAME}.")
            for name in ("crop", "refine", "despill", "shadow", "consistent")
        ),
        ({"format": "zip", "bg_color": "white"}, f"bg_color cannot go with format=zip: {AS_IT_CAME}."),
        ({"format": "zip", "bg_image": "w.jpg"}, f"bg_image cannot go with format=zip: {AS_IT_CAME}."),
        ({"format": "zip", "size": "preview"}, f"size=preview cannot go with format=zip: {AS_IT_CAME}."),
        (
            {"format": "zip", "channels": "alpha"},
            "channels=alpha cannot go with format=zip: a zip holds photo and mask.",
        ),
        ({"bg_color": "white", "bg_image": "wall.jpg"}, "bg_color cannot go with bg_image: only one can lie behind"),
        ({"crop": True, "consistent": True}, "crop cannot go with consistent: both say where the subject stands."),
    ],
)
def test_wrong_options_are_refused_and_it_is_said_which_and_why(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(BadOptions) as refused:
        parse_options(wrong)
    sentence = str(refused.value)
    assert sentence.startswith(f"The cutout options cannot be used: {why.removesuffix('.')}")
    assert sentence.endswith(".")
    assert not sentence.endswith("..")


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadOptions, match=r"used: format: .+; shdow: "):
        parse_options({"format": "gif", "shdow": True})


@pytest.mark.parametrize(
    "right",
    [
        {"channels": "alpha", "crop": True, "crop_margin": "500px 50%", "refine": True},
        {"channels": "alpha", "consistent": True},
        {"format": "zip", "size": "full"},
        {"format": "zip", "size": "auto"},
        {"channels": "rgba", "bg_color": None, "bg_image": None},
        {"bg_image": "p"},
        {"bg_image": "p" * 1000, "refine": True, "despill": True, "shadow": True, "consistent": True},
        {"format": "jpg", "bg_color": "white", "crop": True, "shadow": True, "size": "hd"},
    ],
)
def test_what_goes_together_is_taken_as_it_was_given(right: dict[str, object]) -> None:
    assert parse_options(right).model_dump(mode="json", exclude_defaults=True) == {
        name: value for name, value in right.items() if value not in ("auto", "rgba", None)
    }


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("white", (255, 255, 255, 255)),
        (" White ", (255, 255, 255, 255)),
        ("red", (255, 0, 0, 255)),
        ("fff", (255, 255, 255, 255)),
        ("abcd", (170, 187, 204, 221)),
        ("81d4fa", (129, 212, 250, 255)),
        ("81D4FA", (129, 212, 250, 255)),
        ("#81D4FA", (129, 212, 250, 255)),
        ("81d4fa00", (129, 212, 250, 0)),
        ("rgb(129, 212, 250)", (129, 212, 250, 255)),
    ],
)
def test_a_colour_may_be_a_name_hex_or_rgb(typed: str, meant: tuple[int, int, int, int]) -> None:
    assert parse_options({"bg_color": typed}).background == meant


def test_only_a_jpeg_of_the_image_gets_white_where_no_colour_is_asked_for() -> None:
    assert CutoutOptions().format == "png"
    white = {format: CutoutOptions(format=format).background for format in Format}
    assert white == dict.fromkeys(Format) | {Format.JPG: (255, 255, 255, 255)}
    assert parse_options({"format": "jpg", "channels": "alpha"}).background is None


@pytest.mark.parametrize(
    ("typed", "four"),
    [
        ("30px", "30px 30px 30px 30px"),
        (" 10%  20PX ", "10% 20px 10% 20px"),
        ("1px 2.25% 3px 4px", "1px 2.25% 3px 4px"),
    ],
)
def test_a_margin_is_for_all_sides_or_for_two_and_two_or_for_each(typed: str, four: str) -> None:
    options = parse_options({"crop": True, "crop_margin": typed})
    assert options.margins == parse_options({"crop": True, "crop_margin": four}).margins
    assert [f"{each.amount:g}{'%' if each.is_percent else 'px'}" for each in options.margins] == four.split()
    assert options.crop_margin == typed.strip().lower()


def test_a_margin_in_percent_goes_by_the_subject_and_one_in_pixels_does_not() -> None:
    assert Margin(amount=2.5, is_percent=True).pixels(4000) == 100
    assert Margin(amount=2.6, is_percent=False).pixels(1000) == 3


def test_a_cutouts_file_has_the_ending_the_type_and_at_most_the_pixels_that_are_documented() -> None:
    assert [each.suffix for each in Format] == [".png", ".jpg", ".webp", ".jxl", ".zip"]
    types = ["image/png", "image/jpeg", "image/webp", "image/jxl", "application/zip"]
    assert [each.media_type for each in Format] == types
    caps = {"preview": 250_000, "medium": 1_500_000, "hd": 4_000_000, "full": 50_000_000, "auto": 50_000_000}
    assert {each.value: each.max_pixels for each in Size} == caps


def test_what_was_asked_for_is_told_in_a_line() -> None:
    assert in_words(CutoutOptions()) == "png"
    asked = {"format": "jpg", "bg_color": "white", "crop": True, "crop_margin": "5px"}
    assert in_words(parse_options(asked)) == "jpg, crop, crop_margin 5px, bg_color white"
