"""The industries that a batch can be tagged with and a grant can be given for.

Tags start with a letter and are `[a-z0-9]` only, so that every Parquet reader keeps them as they are in a path.
"""

from __future__ import annotations

from enum import StrEnum

from schemas.errors import UnknownIndustry


class Industry(StrEnum):
    """A tag; `label` is the company's name for it and `sentence` is what the account page says."""

    AUTOMOTIVE = "automotive"
    ECOMMERCE = "ecommerce"
    MARKETPLACE = "marketplace"
    STUDIO = "studio"
    PIPELINE = "pipeline"
    HIGHVOLUME = "highvolume"

    @property
    def label(self) -> str:
        """The company's name for it, as it stands in a list."""
        return _WORDS[self][0]

    @property
    def sentence(self) -> str:
        """One sentence for the person who is asked."""
        return _WORDS[self][1]


_WORDS = {
    Industry.AUTOMOTIVE: (
        "Automotive inventory photos",
        "Photos of vehicles for sale: exteriors, interiors, wheels and details.",
    ),
    Industry.ECOMMERCE: ("E-commerce product images", "Photos of products for a shop of your own."),
    Industry.MARKETPLACE: ("Marketplace listing images", "Photos that sellers upload to listings on your marketplace."),
    Industry.STUDIO: ("Studio or catalog photography", "Photos taken in a studio for catalogs and look books."),
    Industry.PIPELINE: (
        "Industry-specific asset pipelines",
        "Images that pass through an asset pipeline built for your trade.",
    ),
    Industry.HIGHVOLUME: (
        "High-volume business workflows",
        "Large, regular runs of business images of any other kind.",
    ),
}


def parse_industry(tag: str) -> Industry:
    """The industry of `tag`. Raises `UnknownIndustry`, which lists the tags that exist."""
    try:
        return Industry(tag)
    except ValueError:
        known = ", ".join(industry.value for industry in Industry)
        raise UnknownIndustry(f"There is no industry with that tag. Choose one of: {known}.") from None
