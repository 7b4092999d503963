"""Whatever comes in, hostile or odd: refused with a reason, or kept apart. Nothing leaves its folder."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from portal.intake.archive import Archive, ArchiveLimits
from portal.intake.manifest import Listed, read_manifest
from schemas.batch import Item
from schemas.errors import BadArchive, BadManifest, NothingToDo
from schemas.left_out import LeftOut
from schemas.naming import delivery_paths
from schemas.options import Format

LIMITS = ArchiveLimits(photo_bytes=1_000_000)


def packed(folder: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def read(path: Path, limits: ArchiveLimits = LIMITS) -> dict[str, bytes | None]:
    with Archive(path, limits) as archive:
        return {name: data for name, _, data in archive.read()}


def test_photos_come_out_as_they_went_in_and_the_rest_is_counted(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    path = packed(
        tmp_path, ("VIN2/1.JPG", b"two"), ("VIN1/1.jpg", b"one"), (link, b"/etc/passwd"), ("a/.x.jpg", b"h"),
        ("__MACOSX/VIN1/1.jpg", b"m"), ("list.txt", b"t"), ("empty/", b""),
    )  # fmt: skip
    with Archive(path, LIMITS) as archive:
        assert [name for name, _, _ in archive.read()] == ["VIN1/1.jpg", "VIN2/1.JPG"]
        assert str(archive.left_out) == "1 × .txt, 2 × hidden files, 1 × links"


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a\\..\\x.jpg", "C:/x.jpg", "a//x.jpg", "./x.jpg", "a/\x07.jpg",
     "\\", "x" * 252 + ".jpg", "a/" * 30_000 + "x.jpg"],
)  # fmt: skip
def test_a_name_that_leaves_its_folder_costs_that_entry_alone(tmp_path: Path, name: str) -> None:
    with Archive(packed(tmp_path, ("good.jpg", b"x"), (name, b"x")), LIMITS) as archive:
        assert [path for path, _, _ in archive.read()] == ["good.jpg"]
        assert archive.left_out.counts == {LeftOut.BAD_NAME: 1}


def test_a_name_with_a_nul_in_it_costs_that_entry_alone(tmp_path: Path) -> None:
    path = packed(tmp_path, ("good.jpg", b"x"), ("bad.jpg/@evil.jpg", b"x"), ("@.jpg", b"x"), ("@", b"x"))
    path.write_bytes(path.read_bytes().replace(b"@", b"\0"))
    with Archive(path, LIMITS) as archive:
        assert list(archive.photos) == ["good.jpg"]
        assert archive.left_out.counts == {LeftOut.BAD_NAME: 3}


def test_backslashes_of_old_programs_on_windows_are_slashes(tmp_path: Path) -> None:
    path = packed(tmp_path, ("VIN1\\1.jpg", b"x"), ("VIN1/2.jpg", b"y"))
    assert read(path) == {"VIN1/1.jpg": b"x", "VIN1/2.jpg": b"y"}


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("Überführung/1ä.jpg".encode(), "Überführung/1ä.jpg"), (b"\x9aber\x81/1.jpg", "Überü/1.jpg")],
    ids=["by a Mac", "by DOS"],
)
def test_a_name_that_does_not_say_its_letters_is_read_as_it_was_meant(
    tmp_path: Path, written: bytes, read_as: str
) -> None:
    instead = "x" * (len(written) - 4) + ".jpg"
    path = packed(tmp_path, (instead, b"1"))
    path.write_bytes(path.read_bytes().replace(instead.encode(), written))
    assert read(path) == {read_as: b"1"}


def test_a_folder_is_no_file_that_was_left_out(tmp_path: Path) -> None:
    with Archive(packed(tmp_path, ("a\\", b""), ("b.jpg\\", b""), ("c/", b""), ("1.jpg", b"x")), LIMITS) as archive:
        assert (list(archive.photos), archive.left_out.counts) == (["1.jpg"], {})


def test_an_empty_photo_is_one(tmp_path: Path) -> None:
    assert read(packed(tmp_path, ("a.jpg", b""), ("b.jpg", b"x"))) == {"a.jpg": b"", "b.jpg": b"x"}


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", bytes(5_000_000)), ("b.jpg", b"x"), method=zipfile.ZIP_DEFLATED)
    assert read(path) == {"a.jpg": None, "b.jpg": b"x"}, "one over the limit gets its own result, without its bytes"
    assert read(path, ArchiveLimits(photo_bytes=1)) == {"a.jpg": None, "b.jpg": b"x"}
    with pytest.raises(BadArchive, match="more than the limit"):
        read(path, ArchiveLimits(photo_bytes=10**7, bytes=10**6))
    with pytest.raises(BadArchive, match="entries"):
        read(path, ArchiveLimits(photo_bytes=10**7, entries=1))


def test_an_entry_that_lies_about_its_size_is_found_out(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", bytes(50_000_000)), method=zipfile.ZIP_DEFLATED)
    raw = path.read_bytes().replace(struct.pack("<I", 50_000_000), struct.pack("<I", 1_000))
    path.write_bytes(raw)
    tracemalloc.start()
    assert read(path) == {"a.jpg": None}
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_would_be_unpacked_without_a_limit_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(BadArchive, match="deflate") as refused:
        read(packed(tmp_path, ("b.jpg", b"x"), ("a.jpg", bytes(5_000_000)), method=method))
    assert refused.value.entry == "b.jpg"


def test_a_photo_that_is_damaged_in_the_zip_costs_its_own_result(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", b"first"), ("b.jpg", b"other"), ("c.jpg", b"third"))
    path.write_bytes(path.read_bytes().replace(b"first", b"worse").replace(b"third", b"THIRD"))
    with Archive(path, LIMITS) as archive:
        assert [data for _, _, data in archive.read()] == [None, b"other", None]
        assert archive.damaged == ["a.jpg", "c.jpg"]


def test_so_it_does_wherever_it_is_damaged(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", bytes(range(256)) * 4), ("b.jpg", b"other"), method=zipfile.ZIP_DEFLATED)
    raw = path.read_bytes()
    for at in range(len("a.jpg") + 30, raw.index(b"PK\x03\x04", 1)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        data = read(path)
        assert (data["a.jpg"], data["b.jpg"]) in ((None, b"other"), (bytes(range(256)) * 4, b"other"))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", b"x"))
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(BadArchive, match="encrypted"):
        read(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, ("a.jpg", b"x" * 1000), ("b.jpg", b"y" * 1000))
    raw = bytearray(path.read_bytes())
    second = raw.rfind(b"PK\x01\x02")
    raw[second + 42 : second + 46] = struct.pack("<I", 0)  # the second entry's bytes are the first one's
    path.write_bytes(raw)
    with pytest.raises(BadArchive):
        read(path)


def test_photos_may_lie_in_another_order_than_they_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"first")
        archive.writestr("b.jpg", b"other")
        archive.filelist.reverse()
    assert read(path) == {"a.jpg": b"first", "b.jpg": b"other"}


def test_the_same_name_twice_is_refused_and_near_names_are_kept_apart(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), pytest.raises(BadArchive, match="twice") as refused:
        read(packed(tmp_path, ("a.jpg", b"1"), ("a.jpg", b"2")))
    assert (refused.value.entry, "a.jpg" in str(refused.value)) == ("a.jpg", False)
    names = ["A.jpg", "a.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "\U0001f697.jpg", "\u202egpj.jpg"]
    kept = read(packed(tmp_path, *((name, name.encode()) for name in names)))
    assert set(kept) == set(names)
    items = [Item(number=number, path=path, size=1) for number, path in enumerate(kept, start=1)]
    delivered = {path.casefold() for path in delivery_paths(items, ".png").values()}
    assert len(delivered) == len(names)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_or_holds_nothing_is_said_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises((BadArchive, NothingToDo)):
        read(path)


def listed_in(text: str, name: str) -> list[Listed]:
    return read_manifest(text.encode(), name, str)


def test_a_manifest_names_folders_places_and_options() -> None:
    listed = listed_in("vin,path,url,format\nWAU1,p/1.jpg,,jpg\nWAU2,,https://photos.example/a/1.jpg,\n", "m.csv")
    assert [(each.path, each.file, each.url) for each in listed] == [
        ("WAU1/1.jpg", "p/1.jpg", ""),
        ("WAU2/1.jpg", None, "https://photos.example/a/1.jpg"),
    ]
    assert listed[0].options is not None
    assert listed[0].options.format is Format.JPG
    assert listed[1].options is None
    assert listed[:1] == listed_in('{"vin": "WAU1", "path": "p/1.jpg", "format": "jpg"}\n', "m.jsonl")


def test_a_manifest_says_what_a_photo_is_called_and_which_flags_it_has() -> None:
    listed = listed_in("path, name ,crop,shadow\n p/1.jpg ,front/left.jpg,yes,0\n2.jpg,,NO,True\n3.jpg\n", "m.csv")
    assert [(each.path, each.file) for each in listed] == [
        ("front/left.jpg", "p/1.jpg"),
        ("2.jpg", "2.jpg"),
        ("3.jpg", "3.jpg"),
    ]
    given = [each.options and (each.options.crop, each.options.shadow) for each in listed]
    assert given == [(True, False), (False, True), None]


def test_a_line_of_json_ends_where_json_says() -> None:
    lines = '{"path": "a\u2028b.jpg"}\r\n{"path": "2.jpg"}\r{"path": "3.jpg"}'
    assert [each.path for each in listed_in(lines, "m.jsonl")] == ["a\u2028b.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_lists_the_same_as_lines_and_paths_and_addresses_alone(indent: int | None) -> None:
    rows = [{"vin": "WAU1", "path": "p/1.jpg", "format": "jpg"}, {"url": "https://photos.example/a/1.jpg"}]
    lines = "\n".join(map(json.dumps, rows))
    assert listed_in(f"\ufeff{json.dumps(rows, indent=indent)}\n", "m.json") == listed_in(lines, "m.json")
    alone = listed_in(json.dumps(["p/1.jpg", "https://photos.example/a/1.jpg"], indent=indent), "M.JSON")
    assert [(each.path, each.file, each.url) for each in alone] == [
        ("p/1.jpg", "p/1.jpg", ""),
        ("photos.example/a/1.jpg", None, "https://photos.example/a/1.jpg"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_as_excel_saves_it_in_any_country_is_read(delimiter: str) -> None:
    saved = "\ufeffVIN;Path;bg_color\r\nWAU1;Fotos\\Käfer.jpg;\r\n"
    assert [(each.path, each.file) for each in listed_in(saved.replace(";", delimiter), "m.csv")] == [
        ("WAU1/Käfer.jpg", "Fotos/Käfer.jpg")
    ]
    with pytest.raises(BadManifest, match=r"line 2, column 2 \(format\)"):
        listed_in(f"path{delimiter}format\r\n1.jpg{delimiter}gif\r\n", "m.csv")


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("m.csv", "vin,pth\nA,1.jpg\n", "line 1, column 2 (pth)"),
        ("m.csv", "path,format\n1.jpg,png\n2.jpg,gif\n", "line 3, column 2 (format)"),
        ("m.csv", "path\n../1.jpg\n", "line 2, column 1 (path)"),
        ("m.csv", "path,url\n1.jpg,https://x.example/1\n", "line 2, column 1 (path)"),
        ("m.csv", "path\n1.jpg\n1.jpg\n", "line 3"),
        ("m.csv", "path\n1.jpg,png\n", "line 2, column 2"),
        ("m.csv", "path,path\n1.jpg,2.jpg\n", "line 1, column 1: a column stands there twice"),
        ("m.csv", "path,vin,name\n1.jpg,A,..\n", "line 2, column 3 (name)"),
        ("m.csv", "path,vin\n1.jpg,..\n", "line 2, column 2 (vin)"),
        ("m.csv", "path,format,size\n1.jpg,gif,full\n", "line 2, column 2 (format)"),
        ("m.csv", "path,format,size\n1.jpg,png,huge\n", "line 2, column 3 (size)"),
        ("m.csv", 'path\n"1.jpg\n', "line"),
        ("m.jsonl", '{"path": "1.jpg"}\n{"path": }\n', "line 2, column 10"),
        ("m.jsonl", '{"path": "1.jpg", "colour": "x"}\n', "line 1, column 19 (colour)"),
        ("m.jsonl", '{"path": 5}\n', "line 1, column 2 (path)"),
        ("m.jsonl", "[1]\n", "line 1, column 1"),
        ("m.jsonl", "null\n", "line 1, column 1: a line must be"),
        ("m.jsonl", '{"path": ' + "1" * 5000 + "}\n", "line 1, column 1"),
        ("m.jsonl", '{"path": "1.jpg", "bg_image": "\\ud800"}\n', "line 1, column 19 (bg_image)"),
        ("m.json", '["1.jpg",\n "../2.jpg"]', "line 2, column path"),
        ("m.json", '["1.jpg", "2.jpg", "1.jpg"]', "line 1 has the same name"),
        ("m.json", '[\n{"path": "1.jpg"},\n{"path":\n"2.jpg",\n"format": "gif"}]', "line 3, column format"),
        ("m.json", '[\n{"path": "1.jpg", "colour": 1}]', "line 2, column colour: there is no such field"),
        ("m.json", '["1.jpg",\n7]', "line 2, column 1: a photo is"),
        ("m.json", '["1.jpg",\n"2.jpg",]', "line 2, column 9: this is no JSON"),
        ("m.json", "[" * 100_000, "this is no JSON"),
        ("m.json", '["1.jpg"] ["2.jpg"]', "line 1, column 11: this is no JSON"),
        ("m.json", "[]", "lists no photo"),
        ("m.csv", "", "lists no photo"),
    ],
)
def test_a_fault_is_named_with_its_line_and_column(name: str, text: str, where: str) -> None:
    with pytest.raises(BadManifest) as caught:
        listed_in(text, name)
    assert where in str(caught.value)
    assert "Nothing was started" in str(caught.value)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.json"])
def test_a_field_whose_name_would_move_the_cursor_is_spelled_out(name: str) -> None:
    field = "x\x1b[2j" + "y" * 200
    text = f'"{field}"\n1\n' if name == "m.csv" else json.dumps([{field: 1, "\ud800": 1}])[1:-1]
    with pytest.raises(BadManifest) as caught:
        listed_in(f"[{text}]" if name == "m.json" else text, name)
    assert (str(caught.value).isprintable(), "x\\x1b[2j" in str(caught.value)) == (True, True)
    assert len(str(caught.value)) < 500


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(BadManifest) as caught:
        listed_in("path,size\n/a.jpg,full\nb.jpg,huge\n", "m.csv")
    assert "line 2" in str(caught.value)
    assert "line 3" in str(caught.value)
