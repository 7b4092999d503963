"""What the files of a copy look like: one part of one grant in, named bytes out. Pure."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime

import pyarrow as pa

from lake.copies.manifest import Kind, Part
from lake.parquet import to_parquet
from schemas.candidate import IMAGE_COLUMNS

Named = tuple[str, bytes, int]
"""A file's path in the copy, its bytes, and how many candidates are in it."""

_KINDS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"BM", "bmp"))
_BLOCK = 512
_HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode(kind: Kind, part: Part, rows: pa.Table) -> Iterator[Named]:
    """The files of one part. `rows`: as `schemas.candidate.READ`."""
    yield from _ENCODERS[kind](part, _with_origin(part, rows))


def suffix_of(image: bytes | memoryview) -> str:
    """What a file of these bytes is called."""
    start = bytes(image[:32])
    for magic, suffix in _KINDS:
        if start.startswith(magic):
            return suffix
    if start[:4] == b"RIFF":
        return "webp"
    if start[4:8] == b"ftyp":
        return "avif" if b"avi" in start[8:] else "heic"
    return "jxl"


def _with_origin(part: Part, rows: pa.Table) -> pa.Table:
    """The rows with what stood in their path, and the marks of duplicates; images stay last."""
    candidates = rows["candidate_id"].to_pylist()
    added: dict[str, pa.Array] = {
        name: pa.DictionaryArray.from_arrays(pa.array([0] * rows.num_rows, pa.int32()), [value])
        for name, value in (("industry", part.industry.value), ("grant_id", part.grant_id), ("split", part.split.value))
    }
    for name, marks in (("duplicate_of", part.duplicate_of), ("near_duplicate_of", part.near_duplicate_of)):
        added[name] = pa.array([marks.get(each) for each in candidates], pa.string())
    at = rows.num_columns - len(IMAGE_COLUMNS)
    for name, column in reversed(added.items()):
        rows = rows.add_column(at, name, column)
    return rows


def _parquet(part: Part, rows: pa.Table) -> Iterator[Named]:
    yield f"data/{part.split}/{part.name}.parquet", to_parquet(rows), rows.num_rows


def _hf(part: Part, rows: pa.Table) -> Iterator[Named]:
    """Parquet whose images Hugging Face datasets show and decode."""
    candidates = rows["candidate_id"].to_pylist()
    for name, old in (("mask", "mask_png"), ("image", "image")):
        suffixes = ["mask.png"] * rows.num_rows if name == "mask" else [suffix_of(each) for each in _buffers(rows[old])]
        paths = pa.array([f"{each}.{suffix}" for each, suffix in zip(candidates, suffixes, strict=True)], pa.string())
        column = pa.StructArray.from_arrays([rows[old].combine_chunks(), paths], fields=list(_HF_IMAGE))
        rows = rows.drop_columns([old]).append_column(name, column)
    features = {name: {"_type": "Image"} for name in ("mask", "image")}
    for field in rows.schema:
        if field.name not in features:
            features[field.name] = {"dtype": _hf_type(field.type), "_type": "Value"}
    said = json.dumps({"info": {"features": {name: features[name] for name in rows.column_names}}})
    rows = rows.replace_schema_metadata({"huggingface": said})
    yield f"data/{part.split}/{part.name}.parquet", to_parquet(rows), rows.num_rows


def _hf_type(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return {"float": "float32", "timestamp[us, tz=UTC]": "timestamp[us, tz=UTC]"}.get(str(kind), str(kind))


def _webdataset(part: Part, rows: pa.Table) -> Iterator[Named]:
    """A tar of triples with one stem each: `<id>.jpg`, `<id>.mask.png`, `<id>.json`."""
    pieces: list[bytes | memoryview] = []
    for stem, image, mask, labels in _samples(rows):
        members = ((f"{stem}.{suffix_of(image)}", image), (f"{stem}.mask.png", mask), (f"{stem}.json", labels))
        for name, data in members:
            pieces += (_tar_header(name, len(data)), data, bytes(-len(data) % _BLOCK))
    pieces.append(bytes(2 * _BLOCK))
    yield f"data/{part.split}/{part.name}.tar", b"".join(pieces), rows.num_rows


def _files(part: Part, rows: pa.Table) -> Iterator[Named]:
    """Plain files: `<id>.jpg`, `<id>.mask.png`, and one JSON line per image beside them."""
    folder = f"data/{part.split}/{part.grant_id}"
    lines = io.BytesIO()
    for stem, image, mask, labels in _samples(rows):
        yield f"{folder}/{stem}.{suffix_of(image)}", bytes(image), 1
        yield f"{folder}/{stem}.mask.png", bytes(mask), 1
        lines.write(labels + b"\n")
    yield f"{folder}/{part.name}.jsonl", lines.getvalue(), rows.num_rows


def _samples(rows: pa.Table) -> Iterator[tuple[str, memoryview, memoryview, bytes]]:
    light = rows.drop_columns(list(IMAGE_COLUMNS)).to_pylist()
    heavy = (_buffers(rows["image"]), _buffers(rows["mask_png"]))
    for labels, image, mask in zip(light, *heavy, strict=True):
        yield labels["candidate_id"], image, mask, json.dumps(labels, default=_moment).encode()


def _buffers(column: pa.ChunkedArray) -> Iterator[memoryview]:
    for each in column:
        yield memoryview(each.as_buffer())


def _tar_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


_ENCODERS: dict[Kind, Callable[[Part, pa.Table], Iterator[Named]]] = {
    Kind.PARQUET: _parquet,
    Kind.WEBDATASET: _webdataset,
    Kind.FILES: _files,
    Kind.HF: _hf,
}
