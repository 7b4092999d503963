"""Profiles made by hand: Display P3 and sRGB of the numbers in their standards (SMPTE EG 432-1 and IEC 61966-2-1
primaries, D65 adapted to D50, sRGB's curve), and grays of any gamma.
"""

from __future__ import annotations

import struct

# Colourants in the profile connection space, as Apple, HP and the ICC publish them.
_WHITE = {b"wtpt": (0.96420, 1.0, 0.82491)}
_DISPLAY_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
_SRGB = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}


def display_p3(name: bytes = b"Display P3") -> bytes:
    """A version 2 matrix profile that calls itself so."""
    return _matrix_profile(_DISPLAY_P3, name)


def srgb(name: bytes) -> bytes:
    """The same of sRGB."""
    return _matrix_profile(_SRGB, name)


def _matrix_profile(
    colourants: dict[bytes, tuple[float, float, float]],
    name: bytes,
    more: dict[bytes, bytes] | None = None,
    version: bytes = b"\x02",
) -> bytes:
    tags = {tag: _xyz(values) for tag, values in (colourants | _WHITE).items()}
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0)
    curve += b"".join(_fixed(v) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    profile = _profile(b"RGB ", name + b"\0", tags | (more or {}))
    return profile[:8] + version + profile[9:]


def display_p3_with_pipelines(elements: int) -> bytes:
    """The same of version 4, with programs of so many steps that make everything black."""
    black = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, *[0.0] * 12)
    steps = struct.pack(">II", 16 + 8 * elements, len(black)) * elements
    pipeline = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, elements) + steps + black
    return _matrix_profile(_DISPLAY_P3, b"Display P3", {b"D2B0": pipeline, b"D2B1": pipeline}, b"\x04")


def gray_profile(gamma: float) -> bytes:
    """A version 2 profile of one curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return _profile(b"GRAY", b"Gray\0", {b"wtpt": _xyz(_WHITE[b"wtpt"]), b"kTRC": curve})


def _profile(space: bytes, text: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4s4s4s4s4s", offset + len(body), bytes(4), b"\x02\x40\0\0", b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += b"".join(_fixed(v) for v in (0.9642, 1.0, 0.82491))
    header += bytes(128 - len(header))
    return header + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))
