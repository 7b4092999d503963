"""Cutout options, named as in the company's public API. Wrong values are refused at submission, not at item 4,000."""

from __future__ import annotations

import re
from enum import StrEnum

from PIL import ImageColor
from pydantic import ValidationError, field_validator, model_validator

from schemas.errors import BadOptions
from schemas.record import Record

Rgba = tuple[int, int, int, int]
"""Straight (not premultiplied) sRGB and alpha, each 0 to 255."""


class Format(StrEnum):
    """What file a cutout is. `jxl` is lossless; `zip` holds the photo's own bytes and the mask as a PNG beside them."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"
    JXL = "jxl"
    ZIP = "zip"

    @property
    def suffix(self) -> str:
        """The ending of its file name, with the dot."""
        return f".{self.value}"

    @property
    def media_type(self) -> str:
        """Its media type (IANA)."""
        return {Format.JPG: "image/jpeg", Format.ZIP: "application/zip"}.get(self, f"image/{self.value}")


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


class Margin(Record):
    """Room around a cropped subject: `amount` pixels of the photo, or percent of the subject's own size."""

    amount: float
    is_percent: bool

    def pixels(self, length: int) -> int:
        """In pixels, for a subject of this length."""
        return round(length * self.amount / 100) if self.is_percent else round(self.amount)


class CutoutOptions(Record):
    """How each item of a batch is to come out. Use `parse_options` on what a person typed.

    `crop`: to the subject, with `crop_margin` around it: one value, two (above and below, left and right) or four
    (above, right, below, left), each such as `30px` or `10%`; with `shadow` at least as much as that takes.
    `bg_image`: the path of one of the batch's own photos to put behind the subjects. `refine`: soft edges worked out
    from the photo's own pixels. `despill`: no colour of the old background in them. `shadow`: a soft one on the ground.
    `consistent`: every subject of the same height and on the same line, for the photos of one vehicle.
    """

    format: Format = Format.PNG
    channels: Channels = Channels.RGBA
    size: Size = Size.AUTO
    crop: bool = False
    crop_margin: str = "0px"
    bg_color: str | None = None
    bg_image: str | None = None
    refine: bool = False
    despill: bool = False
    shadow: bool = False
    consistent: bool = False

    @field_validator("crop_margin")
    @classmethod
    def _is_a_margin(cls, value: str) -> str:
        _margins(value)
        return value.strip().lower()

    @field_validator("bg_image")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is None:
            return None
        is_other = "://" in value or value.startswith("data:") or not _is_text(value)
        if is_other or not 0 < len(value) <= 1000:
            raise ValueError(
                "bg_image is the relative path of one of the batch's own photos, such as backdrops/wall.jpg."
            )
        return value

    @field_validator("bg_color")
    @classmethod
    def _is_a_colour(cls, value: str | None) -> str | None:
        if value is not None:
            _rgba(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CutoutOptions:
        contradiction = self._contradiction()
        if contradiction is not None:
            one, other, why = contradiction
            raise ValueError(f"{one} cannot go with {other}: {why}. Leave one out.")
        return self

    def _contradiction(self) -> tuple[str, str, str] | None:
        """Two that cannot go together, and why; the first that there is."""
        changes = ("bg_color", "bg_image", "consistent", "crop", "despill", "refine", "shadow")
        said = [name for name in changes if getattr(self, name)]
        if self.channels is Channels.ALPHA:
            for name in said:
                if name in ("bg_color", "bg_image", "despill", "shadow"):
                    return name, "channels=alpha", "a mask has neither colours nor a background"
        if self.format is Format.ZIP:
            if said:
                return said[0], "format=zip", "a zip holds the photo as it came"
            if self.channels is Channels.ALPHA:
                return "channels=alpha", "format=zip", "a zip holds photo and mask"
            if self.size not in (Size.FULL, Size.AUTO):
                return f"size={self.size}", "format=zip", "a zip holds the photo as it came"
        if self.bg_color and self.bg_image:
            return "bg_color", "bg_image", "only one can lie behind the subject"
        if self.crop and self.consistent:
            return "crop", "consistent", "both say where the subject stands"
        if self.crop_margin != "0px" and not self.crop:
            return "crop_margin", "crop=false", "there is nothing for a margin to lie around"
        return None

    @property
    def margins(self) -> tuple[Margin, Margin, Margin, Margin]:
        """Above, right, below, left."""
        return _margins(self.crop_margin)

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
        raise BadOptions(f"The cutout options cannot be used: {faults.removesuffix('.')}.") from None


def in_words(options: CutoutOptions) -> str:
    """What was asked for, in a line: the format, and what is not as it is without asking."""
    said = options.model_dump(exclude={"format"}, exclude_defaults=True)
    return ", ".join([options.format, *(name if value is True else f"{name} {value}" for name, value in said.items())])


def _fault(location: tuple[int | str, ...], message: str) -> str:
    field = ".".join(str(part) for part in location)
    sentence = message.removeprefix("Value error, ")
    return f"{field}: {sentence}" if field else sentence


def _is_text(value: str) -> bool:
    """Whether it can be written down: JSON can hold half of a letter, UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rgba(colour: str) -> Rgba:
    text = colour.strip().lower()
    is_bare_hex = all(digit in "0123456789abcdef" for digit in text)
    try:
        red, green, blue, *alpha = ImageColor.getrgb(f"#{text}" if is_bare_hex else text)
        found = (red, green, blue, alpha[0] if alpha else 255)
        if not 0 <= min(found) <= max(found) <= 255:  # pillow reads rgb(999, 0, 0)
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{colour!r} is no colour. Use a name (white), hex (fff, #81d4fa, 81d4fa77) or rgb(129, 212, 250)."
        ) from None
    return found


_MARGIN = re.compile(r"(\d{1,4}(?:\.\d{1,2})?)(px|%)")


def _margins(text: str) -> tuple[Margin, Margin, Margin, Margin]:
    parts = [_MARGIN.fullmatch(part) for part in text.lower().split()]
    found = [Margin(amount=float(part[1]), is_percent=part[2] == "%") for part in parts if part is not None]
    is_within = all(margin.amount <= (50 if margin.is_percent else 500) for margin in found)
    if len(found) != len(parts) or len(found) not in (1, 2, 4) or not is_within:
        raise ValueError("A margin is one, two or four values of up to 500px or 50%, such as 30px or 10% 20%.")
    above, right, below, left = found * (4 // len(found))
    return above, right, below, left
