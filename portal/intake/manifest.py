"""A manifest: CSV, JSON lines, or a JSON array. It is checked whole; every fault is named with its line and column.

    vin,path,format,bg_color            {"vin": "WAU1", "path": "1.jpg", "format": "jpg", "bg_color": "white"}
    WAU1,photos/1.jpg,jpg,white         {"url": "https://photos.example/2.jpg"}
    WAU1,,png,                 …

`path` (beside the manifest) or `url` says where the photo is, exactly one of them; `vin` is the folder of its cutout;
`name` is what to call it. Every other column is a cutout option for this photo alone. A CSV may have semicolons or tabs
for commas, as Excel writes them in some countries. An array (`.json`) holds such objects, or paths and addresses alone.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from portal.intake.addresses import name_in, not_started
from schemas.batch import safe_path
from schemas.errors import BadOptions, UserError
from schemas.naming import shown
from schemas.options import CutoutOptions, parse_options

_OWN = ("vin", "path", "url", "name")
_OPTIONS = tuple(CutoutOptions.model_fields)
_DELIMITERS = (",", ";", "\t")
"""No column has one in its name, so the header tells which it is."""
_JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".csv", *_JSON_LINES)
"""What a manifest's name ends in."""
_BLANKS = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Listed:
    """One photo. `path` is what to call the photo; `file` (beside the manifest) or `url` says where it is."""

    path: str
    file: str | None
    url: str
    options: CutoutOptions | None


@dataclass(frozen=True)
class _Fault:
    line: int
    column: str
    sentence: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.sentence}."


@dataclass(frozen=True)
class _Row:
    line: int
    cells: dict[str, object]
    columns: dict[str, str]


def read_manifest(
    data: bytes, name: str, source_of: Callable[[str], str], base: CutoutOptions | None = None
) -> list[Listed]:
    """The photos that a manifest lists. Raises `BadManifest`.

    `source_of`: the address that a line's `url` stands for; raises `UserError` when the account may not name it.
    `base`: options that a line's own are laid over.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_started(["The manifest is not in UTF-8. In Excel, save it as `CSV UTF-8`, and send that."]) from None
    faults: list[_Fault] = []
    listed: list[Listed] = []
    seen: dict[str, _Row] = {}
    for row in _reader_of(name.lower(), text)(text, faults):
        one = _listed(row, source_of, base or CutoutOptions(), faults)
        if one is None:
            continue
        first = seen.setdefault(one.path, row)
        if first is not row:
            faults.append(
                _Fault(row.line, row.columns.get("name", "1"), f"the photo of line {first.line} has the same name")
            )
        listed.append(one)
    if faults:
        raise not_started([str(fault) for fault in sorted(faults, key=lambda fault: fault.line)])
    if not listed:
        raise not_started(["The manifest lists no photo."])
    return listed


def _reader_of(name: str, text: str) -> Callable[[str, list[_Fault]], Iterator[_Row]]:
    if name.endswith(".json") and text.lstrip().startswith("["):
        return _array_rows
    return _json_rows if name.endswith(_JSON_LINES) else _csv_rows


def _csv_rows(text: str, faults: list[_Fault]) -> Iterator[_Row]:
    header_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        columns = {name: f"{place} ({shown(name)})" for place, name in enumerate(header, start=1)}
        faults += [
            _Fault(1, f"{place} ({shown(name)})", f"there is no such column. Use {', '.join((*_OWN, *_OPTIONS))}")
            for place, name in enumerate(header, start=1)
            if name not in (*_OWN, *_OPTIONS)
        ]
        if len(set(header)) < len(header):
            faults.append(_Fault(1, "1", "a column stands there twice"))
        if faults:
            return
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                faults.append(_Fault(reader.line_num, str(len(header) + 1), "more cells than the header has"))
                continue
            filled = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
            yield _Row(reader.line_num, dict(filled), columns)
    except csv.Error as error:
        faults.append(_Fault(reader.line_num, "1", f"this is no CSV ({error})"))


def _json_rows(text: str, faults: list[_Fault]) -> Iterator[_Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):  # a name may hold other line breaks
        if not line.strip():
            continue
        for cells in _json(line, number, faults):
            if isinstance(cells, dict):
                columns = {name: f"{line.find(json.dumps(name)) + 1} ({shown(name)})" for name in cells}
                yield from _json_row(number, cells, columns, faults)
            else:
                faults.append(_Fault(number, "1", "a line must be one object in braces"))


def _array_rows(text: str, faults: list[_Fault]) -> Iterator[_Row]:
    """Each object's line is the one on which it begins."""
    if not any(True for _ in _json(text, 1, faults)):
        return
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = _past(text, text.index("[") + 1)
    while text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, end = decoder.raw_decode(text, at)
        if isinstance(value, str):
            value = {"url" if "://" in value else "path": value}
        if isinstance(value, dict):
            yield from _json_row(line, value, {name: shown(name) for name in value}, faults)
        else:
            faults.append(_Fault(line, "1", "a photo is an object in braces, or a path or address in quotation marks"))
        at = _past(text, end)
        at = _past(text, at + 1) if text[at] == "," else at


def _past(text: str, at: int) -> int:
    """Where the blanks from here end."""
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _json(text: str, line: int, faults: list[_Fault]) -> Iterator[object]:
    """What stands there, which begins on `line`; nothing, and a fault, if it is no JSON."""
    try:
        yield json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is JSON, and no number here
        down, column = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (1, 1)
        faults.append(_Fault(line + down - 1, str(column), "this is no JSON"))


def _json_row(line: int, cells: dict[str, object], columns: dict[str, str], faults: list[_Fault]) -> Iterator[_Row]:
    unknown = [name for name in cells if name not in (*_OWN, *_OPTIONS)]
    faults += [_Fault(line, columns[name], "there is no such field") for name in unknown]
    if not unknown:
        yield _Row(line, {name: value for name, value in cells.items() if value is not None}, columns)


def _listed(row: _Row, source_of: Callable[[str], str], base: CutoutOptions, faults: list[_Fault]) -> Listed | None:
    def fault(name: str, sentence: str) -> None:
        faults.append(_Fault(row.line, row.columns.get(name, "1"), sentence))

    wrong = [name for name in _OWN if name in row.cells and not isinstance(row.cells[name], str)]
    for name in wrong:
        fault(name, "this must be text")
    if wrong:
        return None
    own = {name: str(row.cells[name]) for name in _OWN if name in row.cells}
    if ("path" in own) == ("url" in own):
        fault("path" if "path" in own else "1", "give a path or a url, one of them")
        return None
    try:
        file = safe_path(own["path"]) if "path" in own else None
    except ValueError:
        fault("path", "this path is absolute, leaves its folder, or cannot be")
        return None
    try:
        url = source_of(own["url"]) if "url" in own else ""
    except UserError as error:
        fault("url", str(error).rstrip("."))
        return None
    called = own.get("name") or (file if file is not None else name_in(own["url"]))
    try:
        path = safe_path(f"{own['vin']}/{PurePosixPath(called).name}" if "vin" in own else called)
    except ValueError:
        fault("name" if "name" in own else "vin", "no photo can be called so")
        return None
    given = {name: row.cells[name] for name in _OPTIONS if name in row.cells}
    try:
        options = parse_options(base.model_dump(mode="json") | given) if given else None
    except BadOptions as error:
        fault(next(iter(given)) if len(given) == 1 else _named(str(error), given), str(error).rstrip("."))
        return None
    return Listed(path=path, file=file, url=url, options=options)


def _named(sentence: str, given: dict[str, object]) -> str:
    """The first option that the sentence speaks of."""
    return min(given, key=lambda name: sentence.find(name) if name in sentence else len(sentence))
