"""What the files of a copy look like: one part of one grant in, named bytes out. Pure."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from lake.copies.manifest import Kind, Part
from lake.parquet import to_parquet

Named = tuple[str, bytes, int]
"""A file's path in the copy, its bytes, and how many candidates are in it."""

_KINDS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"BM", "bmp"))
_BLOCK = 512
_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)  # a plain file, mode 0644, of nobody
_SUM_OF_THE_REST = sum(_EMPTY_HEADER[135:148]) + 8 * ord(" ") + sum(_EMPTY_HEADER[156:])  # 148 to 156 is the sum itself
_HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Candidates:
    """Rows of a part, in its order. `labels`: the light columns of `schemas.candidate.READ`; the others beside them."""

    labels: pa.Table
    masks: Sequence[pa.Buffer]
    images: Sequence[pa.Buffer]


def encode(kind: Kind, part: Part, rows: Candidates) -> Iterator[Named]:
    """The files of one part."""
    yield from _ENCODERS[kind](part, _with_origin(part, rows))


def suffix_of(image: pa.Buffer) -> str:
    """What a file of these bytes is called."""
    start = image.slice(0, 32).to_pybytes()
    for magic, suffix in _KINDS:
        if start.startswith(magic):
            return suffix
    if start[:4] == b"RIFF":
        return "webp"
    if start[4:8] == b"ftyp":
        return "avif" if b"avi" in start[8:] else "heic"
    return "jxl"


def _with_origin(part: Part, rows: Candidates) -> Candidates:
    """The labels with what stood in their path, and the marks of duplicates."""
    labels = rows.labels
    candidates = labels["candidate_id"].to_pylist()
    for name, value in (("industry", part.industry.value), ("grant_id", part.grant_id), ("split", part.split.value)):
        codes = pa.array([0] * labels.num_rows, pa.int32())
        labels = labels.append_column(name, pa.DictionaryArray.from_arrays(codes, [value]))
    for name, marks in (("duplicate_of", part.duplicate_of), ("near_duplicate_of", part.near_duplicate_of)):
        labels = labels.append_column(name, pa.array([marks.get(each) for each in candidates], pa.string()))
    return Candidates(labels, rows.masks, rows.images)


def _parquet(part: Part, rows: Candidates) -> Iterator[Named]:
    table = rows.labels
    for name, column in (("mask_png", rows.masks), ("image", rows.images)):
        table = table.append_column(pa.field(name, pa.binary(), nullable=False), _binary(column))
    yield f"data/{part.split}/{part.name}.parquet", to_parquet(table), table.num_rows


def _hf(part: Part, rows: Candidates) -> Iterator[Named]:
    """Parquet whose images Hugging Face datasets show and decode."""
    table = rows.labels
    candidates = table["candidate_id"].to_pylist()
    suffixes = {"mask": ["mask.png"] * len(candidates), "image": [suffix_of(each) for each in rows.images]}
    for name, column in (("mask", rows.masks), ("image", rows.images)):
        paths = [f"{each}.{suffix}" for each, suffix in zip(candidates, suffixes[name], strict=True)]
        values = [_binary(column), pa.array(paths, pa.string())]
        table = table.append_column(name, pa.StructArray.from_arrays(values, fields=list(_HF_IMAGE)))
    features = {name: {"_type": "Image"} for name in ("mask", "image")}
    for field in table.schema:
        if field.name not in features:
            features[field.name] = {"dtype": _hf_type(field.type), "_type": "Value"}
    said = json.dumps({"info": {"features": {name: features[name] for name in table.column_names}}})
    table = table.replace_schema_metadata({"huggingface": said})
    yield f"data/{part.split}/{part.name}.parquet", to_parquet(table), table.num_rows


def _hf_type(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "float32" if kind == pa.float32() else str(kind)


def _webdataset(part: Part, rows: Candidates) -> Iterator[Named]:
    """A tar of triples with one stem each: `<id>.jpg`, `<id>.mask.png`, `<id>.json`."""
    pieces: list[bytes | pa.Buffer] = []
    for stem, image, mask, labels in _samples(rows):
        members = ((f"{stem}.{suffix_of(image)}", image), (f"{stem}.mask.png", mask), (f"{stem}.json", labels))
        for name, data in members:
            pieces += (_tar_header(name, len(data)), data, bytes(-len(data) % _BLOCK))
    pieces.append(bytes(2 * _BLOCK))
    yield f"data/{part.split}/{part.name}.tar", b"".join(pieces), len(rows.images)


def _files(part: Part, rows: Candidates) -> Iterator[Named]:
    """Plain files: `<id>.jpg`, `<id>.mask.png`, and one JSON line per image beside them."""
    folder = f"data/{part.split}/{part.grant_id}"
    lines = io.BytesIO()
    for stem, image, mask, labels in _samples(rows):
        yield f"{folder}/{stem}.{suffix_of(image)}", image.to_pybytes(), 1
        yield f"{folder}/{stem}.mask.png", mask.to_pybytes(), 1
        lines.write(labels + b"\n")
    yield f"{folder}/{part.name}.jsonl", lines.getvalue(), len(rows.images)


def _samples(rows: Candidates) -> Iterator[tuple[str, pa.Buffer, pa.Buffer, bytes]]:
    for labels, image, mask in zip(rows.labels.to_pylist(), rows.images, rows.masks, strict=True):
        yield labels["candidate_id"], image, mask, json.dumps(labels, default=_moment).encode()


def _binary(values: Sequence[pa.Buffer]) -> pa.Array:
    return pa.array([memoryview(each) for each in values], pa.binary())


def _tar_header(name: str, size: int) -> bytes:
    """A member of a tar (ustar): as `tarfile` writes it, without its checks of what is the same for all."""
    header = bytearray(_EMPTY_HEADER)
    header[: len(name)] = name.encode("ascii")
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (sum(header[:135]) + _SUM_OF_THE_REST)
    return bytes(header)


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


_ENCODERS: dict[Kind, Callable[[Part, Candidates], Iterator[Named]]] = {
    Kind.PARQUET: _parquet,
    Kind.WEBDATASET: _webdataset,
    Kind.FILES: _files,
    Kind.HF: _hf,
}
