"""How cutouts are to come out, as `submit` and `schedule add` ask for it.

A parameter of a command is such an option by its name: that of a field of `CutoutOptions`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.options import Channels, CutoutOptions, Format, Size, parse_options

TheFormat = Annotated[str, typer.Option("--format", help=f"One of: {', '.join(Format)}.")]
TheChannels = Annotated[str, typer.Option("--channels", help=f"{' or '.join(Channels)}: the cutout or its mask alone.")]
TheSize = Annotated[str, typer.Option("--size", help=f"Largest size: {', '.join(Size)}. Never scales up.")]
BgColor = Annotated[str | None, typer.Option(help="Colour behind the subject: white, 81d4fa, #81d4fa77.")]
Crop = Annotated[bool, typer.Option("--crop", help="Crop to the subject.")]
CropMargin = Annotated[str, typer.Option(help="Room around a cropped subject: 30px, 10%, or two or four.")]
Refine = Annotated[bool, typer.Option("--refine", help="Work soft edges out from the photo's own pixels.")]
Despill = Annotated[bool, typer.Option("--despill", help="Take the old background out of soft edges.")]
Shadow = Annotated[bool, typer.Option("--shadow", help="Put a soft shadow on the ground.")]


def options_in(command: typer.Context) -> CutoutOptions:
    """Those that the command was called with. Raises `BadOptions`."""
    return parse_options({name: each for name, each in command.params.items() if name in CutoutOptions.model_fields})
