"""Cutout options, named as in the company's public API. Wrong values are refused at submission, not at item 4,000."""

from __future__ import annotations

from enum import StrEnum

from PIL import ImageColor
from pydantic import ValidationError, field_validator, model_validator

from schemas.errors import BadOptions
from schemas.record import Record

Rgba = tuple[int, int, int, int]
"""Straight (not premultiplied) sRGB and alpha, each 0 to 255."""


class Format(StrEnum):
    """What file a cutout is."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"

    @property
    def suffix(self) -> str:
        """The ending of its file name, with the dot."""
        return f".{self.value}"

    @property
    def media_type(self) -> str:
        """Its media type (IANA)."""
        return "image/jpeg" if self is Format.JPG else f"image/{self.value}"


class Channels(StrEnum):
    """`rgba` is the image with its background gone; `alpha` is the mask alone, as a gray image."""

    RGBA = "rgba"
    ALPHA = "alpha"


class Size(StrEnum):
    """The most pixels that a cutout may have. Larger photos are scaled down, smaller ones never up."""

    PREVIEW = "preview"
    MEDIUM = "medium"
    HD = "hd"
    FULL = "full"
    AUTO = "auto"

    @property
    def max_pixels(self) -> int:
        """The cap in pixels. `auto` gives all that there is, as `full` does."""
        return _MAX_PIXELS[self]


_MAX_PIXELS = {
    Size.PREVIEW: 250_000,
    Size.MEDIUM: 1_500_000,
    Size.HD: 4_000_000,
    Size.FULL: 50_000_000,
    Size.AUTO: 50_000_000,
}

WHITE: Rgba = (255, 255, 255, 255)


class CutoutOptions(Record):
    """How each item of a batch is to come out. Use `parse_options` on what a person typed."""

    format: Format = Format.PNG
    channels: Channels = Channels.RGBA
    size: Size = Size.AUTO
    crop: bool = False
    bg_color: str | None = None
    despill: bool = False

    @field_validator("bg_color")
    @classmethod
    def _is_a_colour(cls, value: str | None) -> str | None:
        if value is not None:
            _rgba(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CutoutOptions:
        if self.channels is Channels.ALPHA and self.bg_color is not None:
            raise ValueError("bg_color cannot go with channels=alpha: a mask has no background colour. Leave one out.")
        for name in ("crop", "despill"):
            if getattr(self, name):
                raise ValueError(f"{name} is not offered yet. Leave it out.")
        return self

    @property
    def background(self) -> Rgba | None:
        """The colour behind the subject; None leaves it transparent. A JPEG cannot be, so it gets white."""
        if self.bg_color is not None:
            return _rgba(self.bg_color)
        return WHITE if self.format is Format.JPG and self.channels is Channels.RGBA else None


def parse_options(raw: dict[str, object]) -> CutoutOptions:
    """The options in `raw`. Raises `BadOptions` that names each field at fault and what it may be."""
    try:
        return CutoutOptions.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(_fault(part["loc"], part["msg"]) for part in error.errors())
        raise BadOptions(f"The cutout options cannot be used: {faults.removesuffix(chr(46))}.") from None


def _fault(location: tuple[int | str, ...], message: str) -> str:
    field = ".".join(str(part) for part in location)
    sentence = message.removeprefix("Value error, ")
    return f"{field}: {sentence}" if field else sentence


def _rgba(colour: str) -> Rgba:
    text = colour.strip().lower()
    is_bare_hex = len(text) in (3, 4, 6, 8) and all(digit in "0123456789abcdef" for digit in text)
    try:
        red, green, blue, *alpha = ImageColor.getrgb(f"#{text}" if is_bare_hex else text)
    except ValueError:
        raise ValueError(
            f"{colour!r} is no colour. Use a name (white), hex (fff, #81d4fa, 81d4fa77) or rgb(129, 212, 250)."
        ) from None
    return red, green, blue, alpha[0] if alpha else 255
