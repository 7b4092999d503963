"""A contact sheet: photos with their cutouts beside them, on a checkerboard where nothing is left, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image, ImageDraw

TILE, _GAP, _CHECK = 260, 12, 13
_PAPER, _INK, _LIGHT, _DARK = (250, 249, 246), (28, 35, 33), (255, 255, 255), (214, 219, 215)


def contact_sheet(pairs: Iterable[tuple[str, bytes, bytes | None]]) -> bytes:
    """PNG bytes. Each pair: a caption, the photo's file, the cutout's file or None where there is none."""
    rows = [(caption, _tile(photo), _tile(cutout) if cutout else None) for caption, photo, cutout in pairs]
    columns = 2
    cell_width, cell_height = 2 * TILE + 3 * _GAP, TILE + 34
    sheet = Image.new("RGB", (columns * cell_width + _GAP, -(-len(rows) // columns) * cell_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (caption, photo, cutout) in enumerate(rows):
        left = _GAP + (place % columns) * cell_width
        top = _GAP + (place // columns) * cell_height
        sheet.paste(photo, (left, top))
        if cutout is not None:
            sheet.paste(cutout, (left + TILE + _GAP, top))
        else:
            draw.text((left + TILE + 2 * _GAP, top + TILE // 2), "no cutout", _INK)
        draw.text((left, top + TILE + 6), caption, _INK)
    target = io.BytesIO()
    sheet.save(target, "PNG")
    return target.getvalue()


def _tile(file: bytes) -> Image.Image:
    tile = _checkerboard()
    try:
        with Image.open(io.BytesIO(file)) as opened:
            image = opened.convert("RGBA")
    except OSError:
        ImageDraw.Draw(tile).text((_GAP, TILE // 2), "cannot be shown", _INK)
        return tile
    image.thumbnail((TILE, TILE))
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2), image)
    return tile


def _checkerboard() -> Image.Image:
    board = Image.new("RGB", (TILE, TILE), _LIGHT)
    draw = ImageDraw.Draw(board)
    for top in range(0, TILE, _CHECK):
        for left in range(0, TILE, _CHECK):
            if (top + left) // _CHECK % 2:
                draw.rectangle((left, top, left + _CHECK - 1, top + _CHECK - 1), fill=_DARK)
    return board
