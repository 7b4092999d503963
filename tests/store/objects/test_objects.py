from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3fs
from pydantic import SecretStr

from schemas.errors import NotFound, StillThere, StoreFault
from store.objects.folder import _NAMELESS, Folder, write_whole
from store.objects.object_store import ObjectStore
from store.objects.s3 import _after_version, _listed, after_object
from store.objects.s3_listing import _read_page
from store.objects.storage import Kind, Refused, StoredObject
from store.outside.listing import list_place
from store.settings import Settings
from tests.store.conftest import begin_upload, ceph_bucket, deny, open_store, rclone_bucket, s3_of


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return sorted({found.key for found in store.walk(prefix)})


def test_what_was_written_is_read_and_listed(objects: ObjectStore) -> None:
    objects.write("hour/batch/source/000001", b"photo")
    objects.write("hour/batch/manifest.json", b"{}")
    objects.write("hour/batch/source/000001", b"another photo")
    assert objects.read("hour/batch/source/000001") == b"another photo"
    assert objects.exists("hour/batch/manifest.json")
    assert objects.size("hour/batch/source/000001") == len(b"another photo")
    assert not objects.exists("hour/batch")
    assert objects.folders("") == ["hour"]
    assert objects.folders("hour/batch") == ["source"]
    assert objects.files("hour/batch") == ["manifest.json"]
    assert keys(objects) == ["hour/batch/manifest.json", "hour/batch/source/000001"]
    assert [found.size for found in objects.walk("hour/batch/manifest.json")] == [2]


def test_names_that_mean_something_to_s3s_libraries_are_names(objects: ObjectStore) -> None:
    """Of photos in a customer's own bucket: each is read and written by its own, and no other by it."""
    names = ("a.jpg", "a.jpg?versionId=1.jpg", "a.jpg?versionId=2.jpg", "b*.jpg", "[c].jpg", "d::e.jpg", "f%20g #h.jpg")
    for name in names:
        objects.write(f"VIN1/{name}", name.encode())
    assert objects.files("VIN1") == sorted(names)
    assert [objects.read(f"VIN1/{name}") for name in names] == [name.encode() for name in names]


def test_an_object_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = open_store(*rclone_bucket()), []
    ask = s3fs.S3FileSystem._call_s3

    async def noted(self: s3fs.S3FileSystem, method: str, *arguments: object, **more: object) -> object:
        asked.append(method)
        return await ask(self, method, *arguments, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    store.write("hour/batch/1", b"photo")
    assert store.read("hour/batch/1") == b"photo"
    assert asked == ["put_object", "get_object"]
    store.write("hour/batch/2", bytes(100 * 2**20))
    assert asked[2:] == ["put_object"], "in parts, a writer that is killed leaves those that came"


def test_stores_of_a_process_share_a_client_and_no_keys(tmp_path: Path) -> None:
    """A client costs more than a call to an actor, which opens its stores anew."""
    own = Settings(home=tmp_path, s3_endpoint="http://127.0.0.1:9", s3_key="own", s3_secret=SecretStr("of-own"))
    as_before = s3_of(open_store("s3://bucket/lake", own.model_copy())).filesystem
    assert s3_of(open_store("s3://bucket/transient", own)).filesystem is as_before
    for change in ({"s3_key": "other"}, {"s3_secret": SecretStr("other")}, {"s3_endpoint": "http://127.0.0.1:8"}):
        other = s3_of(open_store("s3://bucket/transient", own.model_copy(update=change))).filesystem
        assert other is not as_before


def test_a_forked_process_has_a_client_of_its_own() -> None:
    url, settings = rclone_bucket()
    open_store(url, settings).write("hour/batch/1", b"photo")
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(_read, url, settings, "hour/batch/1").result(60) == b"photo"
    with ThreadPoolExecutor(1) as thread:  # and leaves its parent's as it was, which would wait for a minute otherwise
        assert thread.submit(_read, url, settings, "hour/batch/1").result(30) == b"photo"


def _read(url: str, settings: Settings, key: str) -> bytes:
    return open_store(url, settings).read(key)


def test_what_is_not_there_is_not_found(objects: ObjectStore) -> None:
    assert not objects.exists("hour/nothing")
    assert objects.folders("hour") == objects.files("hour") == []
    assert keys(objects, "hour") == []
    with pytest.raises(NotFound):
        objects.read("hour/nothing")
    with pytest.raises(NotFound):
        objects.size("hour/nothing")


def test_a_prefix_ends_at_a_folder_not_at_a_letter(objects: ObjectStore) -> None:
    for key in ("hour/a/1", "hour/ab/1", "hour/a.json"):
        objects.write(key, b"x")
    assert keys(objects, "hour/a") == ["hour/a/1"]
    objects.delete_folder("hour/a")
    assert keys(objects) == ["hour/a.json", "hour/ab/1"]


def test_deleting_is_making_absent(objects: ObjectStore) -> None:
    for number in range(5):
        objects.write(f"hour/batch/{number}", b"x")
    objects.delete(["hour/batch/0", "hour/batch/9", "nowhere"])
    assert keys(objects) == [f"hour/batch/{number}" for number in (1, 2, 3, 4)]
    objects.delete([f"hour/batch/{number}" for number in range(9)])
    assert keys(objects) == []
    assert objects.folders("") == [] or objects.delete_folder("hour").objects == 0


def test_a_folder_of_more_than_one_request_is_emptied(objects: ObjectStore) -> None:
    objects.storage.MOST_AT_ONCE = 10
    for number in range(45):
        objects.write(f"hour/batch/{number:03d}", b"12345")
    done = objects.delete_folder("hour/batch")
    assert keys(objects) == []
    assert (done.objects, done.bytes, done.refusals.total()) == (45, 225, 0)


def test_a_key_cannot_leave_the_root(objects: ObjectStore) -> None:
    for key in ("../other", "/etc/passwd", "hour/../../other"):
        with pytest.raises(StoreFault):
            objects.write(key, b"x")
        with pytest.raises(StoreFault):
            objects.delete([key])


def test_a_folder_is_not_looked_into_outside_of_its_root(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/photo.jpg").write_bytes(b"x")
    objects = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))
    with pytest.raises(StoreFault):
        objects.delete_folder("../other")
    with pytest.raises(StoreFault):
        objects.tidy("../other")
    assert (tmp_path / "other/photo.jpg").exists()


def test_the_store_tells_its_time(objects: ObjectStore) -> None:
    assert objects.now().tzinfo is not None


def test_a_folder_tells_its_time_without_a_file_that_others_could_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch that comes in asks for it: a cleanup would count it, and an audit find it outside of any batch."""
    folder = Folder(str(tmp_path / "transient"))
    with monkeypatch.context() as kept:
        kept.setattr(os, "unlink", lambda path: None)
        folder.now()
    assert list(folder.find("")) == []


def test_every_version_is_listed_and_deleted(versioned: ObjectStore) -> None:
    for text in (b"1", b"22", b"333"):
        versioned.write("hour/batch/1", text)
    s3_of(versioned).call("delete_object", Key="transient/hour/batch/1")
    assert not versioned.exists("hour/batch/1")
    kinds = sorted((found.kind.value, found.size) for found in versioned.walk(""))
    assert kinds == [("marker", 0), ("version", 1), ("version", 2), ("version", 3)]
    assert versioned.folders("") == ["hour"]
    done = versioned.delete_folder("hour")
    assert (done.objects, done.bytes) == (4, 6)
    assert list(versioned.walk("")) == []
    page = s3_of(versioned).call("list_object_versions")
    assert not page.get("Versions")
    assert not page.get("DeleteMarkers")


@pytest.mark.parametrize("bucket", [ceph_bucket, rclone_bucket])
def test_unfinished_uploads_are_listed_and_aborted(bucket: object) -> None:
    store = open_store(*bucket())  # type: ignore[operator]
    upload = begin_upload(store, "hour/batch/source/000001", b"x" * 1000)
    assert not store.exists("hour/batch/source/000001")
    assert store.folders("") == ["hour"]
    assert store.folders("hour") == ["batch"]
    assert list(store.walk("hour/batch")) == [StoredObject("hour/batch/source/000001", 1000, upload, Kind.UPLOAD)]
    assert store.delete_folder("hour").bytes == 1000
    assert list(store.walk("")) == []
    assert not s3_of(store).call("list_multipart_uploads").get("Uploads")


def test_many_unfinished_uploads_in_a_folder_cost_no_page_each(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(*ceph_bucket())
    for name in ("a", "b", "c"):
        for number in range(6):
            begin_upload(store, f"{name}/batch/{number}", b"x")
    begin_upload(store, "b-file", b"x")
    s3 = s3_of(store)
    call, pages = s3.call, []

    def two_at_a_time(method: str, **arguments: object) -> object:
        if method != "list_multipart_uploads":
            return call(method, **arguments)
        pages.append(method)
        return call(method, MaxUploads=2, **arguments)

    monkeypatch.setattr(s3, "call", two_at_a_time)
    found = store.children("")
    assert (found.folders, found.files) == (("a", "b", "c"), ("b-file",))
    assert len(pages) <= 4 + 1
    assert len(list(store.walk(""))) == 19


def test_an_upload_that_completes_between_two_listings_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(*ceph_bucket())
    s3, key = s3_of(store), "transient/hour/batch/source/000001"
    upload = begin_upload(store, "hour/batch/source/000001", b"x" * 1000)
    call, listings = s3.call, []

    def complete_after_the_first(method: str, **arguments: object) -> object:
        reply = call(method, **arguments)
        if method.startswith("list_") and method != "list_parts":
            listings.append(method)
            if len(listings) == 1:
                (part,) = call("list_parts", Key=key, UploadId=upload)["Parts"]
                parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
                call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload=parts)
        return reply

    monkeypatch.setattr(s3, "call", complete_after_the_first)
    assert [found.key for found in store.walk("hour")], "else a receipt could say that nothing is left"
    assert len(listings) > 1


def test_a_key_is_deleted_with_its_versions_and_uploads(versioned: ObjectStore) -> None:
    versioned.write("lake/file", b"1")
    versioned.write("lake/file", b"2")
    versioned.write("lake/file2", b"3")
    begin_upload(versioned, "lake/file", b"x")
    versioned.delete(["lake/file"])
    assert [found.key for found in versioned.walk("")] == ["lake/file2"]


def test_what_goes_at_the_last_try_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = ObjectStore(Folder(str(tmp_path)), pause=lambda seconds: None)
    busy.write("hour/batch/1", b"12345")
    remove, tries = busy.storage.remove, []

    def gives_way(objects: Sequence[StoredObject]) -> list[Refused]:
        tries.append(1)
        return remove(objects) if len(tries) == 5 else [Refused(each, "SlowDown") for each in objects]

    monkeypatch.setattr(busy.storage, "remove", gives_way)
    done = busy.delete_folder("hour")
    assert (done.objects, done.bytes, done.refusals["SlowDown"]) == (1, 5, 4)


def test_a_deletion_that_the_store_denies_is_no_success() -> None:
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    for number in range(4):
        store.write(f"hour/batch/{number}", b"x")
    bucket = s3_of(store).bucket
    deny(store, f"arn:aws:s3:::{bucket}/transient/hour/batch/2")
    with pytest.raises(StillThere) as refusal:
        store.delete_folder("hour")
    assert "AccessDenied" in str(refusal.value)
    assert keys(store) == ["hour/batch/2"], "what is allowed is deleted all the same"
    s3_of(store).call("delete_bucket_policy")
    store.delete_folder("hour")
    assert keys(store) == []


def test_a_server_out_of_reach_is_a_fault_with_no_key_in_it() -> None:
    settings = Settings(s3_endpoint="http://127.0.0.1:9", s3_key="k", s3_secret="s")
    store = open_store("s3://bucket/transient", settings)
    s3_of(store).filesystem.retries = 1
    with pytest.raises(StoreFault) as fault:
        store.read("hour/secret-name")
    assert "secret-name" not in str(fault.value)


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[ObjectStore]:
    """The store of a server that answers each request with this status and body."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else nobody tells who sends much to go on

        def do_GET(self) -> None:
            self.close_connection = True
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(max(len(body), 1000 if body == _HALF else 0)))
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield open_store("s3://bucket", Settings(s3_endpoint=address, s3_key="k", s3_secret=SecretStr("s")))
        finally:
            server.shutdown()


_HALF = b"not all of it"


def test_an_answer_that_breaks_off_is_a_fault_of_the_store_and_nothing_unforeseen() -> None:
    with answering(lambda request: (200, _HALF)) as objects:
        with pytest.raises(StoreFault):
            objects.read("grandmothers-portrait.jpg")
        with pytest.raises(StoreFault):
            objects.files("")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Back in a minute</body></html>",
        b"<Result><Name>bucket</Name><IsTruncated>true</IsTruncated></Result>",
        b"<Result><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>"
        b"<NextUploadIdMarker>b</NextUploadIdMarker></Result>",
        b"<Result><IsTruncated>false</IsTruncated><Upload><Key>2026-11-25T12/1</Key></Upload><Version><Size>1</Size></Version>"
        b"<Contents><Key>photos/1.jpg</Key><ETag>1</ETag></Contents></Result>",
        b"<Result><IsTruncated>false</IsTruncated><Upload><Key>2026-11-25T12/1</Key><Initiated>one day</Initiated>"
        b"</Upload><Contents><Key>photos/1.jpg</Key><ETag>1</ETag><Size>all</Size></Contents></Result>",
    ],
    ids=["empty", "a page for people", "cut without a mark", "the same mark for ever", "half of a thing", "no number"],
)
def test_what_is_no_listing_is_a_fault_and_not_a_listing_of_nothing(body: bytes) -> None:
    with answering(lambda request: (200, body)) as objects:
        for look in (objects.children, lambda prefix: list(objects.walk(prefix)), objects.delete_folder):
            with pytest.raises(StoreFault):
                look("2026-11-25T12")
        there = Settings(s3_endpoint=s3_of(objects).filesystem.endpoint_url, s3_key="k", s3_secret=SecretStr("s"))
        with pytest.raises(StoreFault):
            list(list_place("s3://bucket/photos", there))


def test_a_listing_that_goes_round_ends_as_a_fault() -> None:
    def from_one_to_the_other(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        mark = b"b" if "=a" in request.path else b"a"
        marks = b"".join(b"<Next%s>%s</Next%s>" % (each, mark, each) for each in (b"ContinuationToken", b"KeyMarker"))
        return 200, b"<Result><Name>bucket</Name><IsTruncated>true</IsTruncated>%s</Result>" % marks

    with answering(from_one_to_the_other) as objects:
        s3 = s3_of(objects)
        for method, after in (("list_objects_v2", after_object), ("list_object_versions", _after_version)):
            with pytest.raises(OSError, match="does not go on"):
                list(s3.pages(method, after))


def test_a_redirect_that_does_not_say_where_to_is_a_fault_of_the_store() -> None:
    moved = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    with answering(lambda request: (301, moved)) as objects:
        for ask in (objects.exists, objects.files):
            with pytest.raises(StoreFault):
                ask("hour/batch")


@pytest.mark.parametrize("objects", ["rclone", "ceph"], indirect=True)
def test_a_bucket_that_is_gone_is_a_fault_of_the_store(objects: ObjectStore) -> None:
    """Taken for an object that is not there, a photo would fail as missing, a night end as one that is purged."""
    s3_of(objects).call("delete_bucket")
    asks: list[tuple[str, Callable[[], object]]] = [
        ("write: NoSuchBucket", lambda: objects.write("key", b"1")),
        ("read: NoSuchBucket", lambda: objects.read("key")),
        ("list: NoSuchBucket", lambda: objects.children("")),
        ("list: NoSuchBucket", lambda: list(objects.walk(""))),
        ("list: NoSuchBucket", lambda: objects.delete_folder("hour")),
        ("tell the time: 404", objects.now),
    ]
    for refused, ask in asks:
        with pytest.raises(StoreFault, match=f"refused to {refused}"):
            ask()


def test_odd_keys_are_listed_as_they_are_and_deleted(versioned: ObjectStore) -> None:
    odd = sorted(f"hour/batch/{name}" for name in ("a b", "a+b", "a%2Fb", "a%20b", "<&>", "ü", "車", "x\x01y", "'\""))
    for key in odd:
        versioned.write(key, b"x")
        s3_of(versioned).call("delete_object", Key=f"transient/{key}")
    assert keys(versioned) == odd
    assert versioned.files("hour/batch") == [key.removeprefix("hour/batch/") for key in odd]
    assert versioned.delete_folder("hour").objects == 2 * len(odd)
    assert list(versioned.walk("")) == []


def test_what_is_listed_goes_while_the_rest_is_being_listed(tmp_path: Path) -> None:
    """And what belongs together is told in one piece, before any of it is gone."""
    store = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))
    store.storage.MOST_AT_ONCE = 2
    for batch in "abcd":
        for number in range(3):
            store.write(f"hour/{batch}/{number}", b"x")
    told: list[list[str]] = []
    left_at: list[int] = []

    def look() -> Iterator[StoredObject]:
        for found in sorted(store.walk("hour"), key=lambda each: each.key):
            left_at.append(len(keys(store)))
            yield found

    def before(found: Sequence[StoredObject]) -> None:
        told.append([each.key for each in found])
        assert all(store.exists(each.key) for each in found)

    done = store.erase(look, before, together=lambda found: found.key.split("/")[1])
    assert (done.objects, keys(store)) == (12, [])
    assert told == [[f"hour/{batch}/{number}" for number in range(3)] for batch in "abcd"]
    assert left_at[0] == 12
    assert left_at[-1] < 6, "most was gone before the last was listed"


def test_names_in_a_folder_are_found_by_one_listing_that_ends_after_the_last(versioned: ObjectStore) -> None:
    s3 = s3_of(versioned)
    for name in ("a", "a-b", "b", "c", "d"):
        versioned.write(f"hour/{name}/1", b"x")
    versioned.write("hour/file", b"x")
    begin_upload(versioned, "hour/b/2", b"x")
    requests, call = [], s3.call
    s3.call = lambda method, **how: (requests.append(method), call(method, **how))[1]  # type: ignore[method-assign]
    found = [each.key for each in versioned.walk_among("hour", ["a", "b"])]
    assert found == ["hour/a/1", "hour/b/1", "hour/b/2"]
    assert requests == ["list_multipart_uploads", "list_parts", "list_object_versions"]


def test_a_listing_out_of_order_hides_no_name(versioned: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "d"):
        versioned.write(f"hour/{name}/1", b"x")
    s3 = s3_of(versioned)
    find = s3.find
    monkeypatch.setattr(s3, "find", lambda prefix: reversed(list(find(prefix))))
    assert sorted(each.key for each in versioned.walk_among("hour", ["a", "b"])) == ["hour/a/1", "hour/b/1"]


def test_links_in_a_folder_are_deleted_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    store = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))
    store.write("hour/batch/1", b"x")
    os.symlink(outside, tmp_path / "transient/hour/batch/link")
    os.symlink(outside, tmp_path / "transient/link")
    os.mkfifo(tmp_path / "transient/hour/pipe")
    assert store.children("").files == ("link",)
    assert keys(store, "hour") == ["hour/batch/1", "hour/batch/link", "hour/pipe"]
    store.delete(["link"])
    store.delete_folder("hour")
    assert keys(store) == []
    assert (outside / "kept").read_text() == "kept"
    assert os.listdir(tmp_path / "transient") == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(StoreFault, match="No space left"):
        store.write("hour/batch/1", b"x")
    assert keys(store) == []


def test_a_fault_names_no_path_even_in_the_traceback_that_an_engine_keeps(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "place"), Settings(home=tmp_path))
    store.write("VIN1", b"a file where a folder must be")
    with pytest.raises(StoreFault, match="refused to write: ") as fault:
        store.write("VIN1/secret.png", b"x")
    assert str(tmp_path) not in "".join(traceback.format_exception(fault.value))


@pytest.mark.parametrize("letter", ["n", "车", "😀"])
def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path: Path, letter: str) -> None:
    store = open_store(str(tmp_path / "place"), Settings(home=tmp_path))
    name = letter * (255 // len(letter.encode()))
    store.write(f"folder/{name}", b"x")
    assert store.read(f"folder/{name}") == b"x"
    assert keys(store) == [f"folder/{name}"]


KILLED_AT_THE_LAST = """
import os, sys
from store.objects.folder import write_whole
os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
write_whole(f"{sys.argv[1]}/.part", f"{sys.argv[1]}/1.png", bytes(100_000))
"""


def test_a_killed_writer_leaves_nothing_where_files_need_no_name(tmp_path: Path) -> None:
    """Of a customer's folder nobody takes leftovers out."""
    (tmp_path / "1.png").write_bytes(b"the one before")
    done = subprocess.run([sys.executable, "-c", KILLED_AT_THE_LAST, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"1.png": b"the one before"}


@pytest.mark.parametrize("refuses", ["open", "link"])
def test_where_files_need_a_name_they_are_whole_or_not_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """A network share; a machine without /proc."""
    theirs = getattr(os, refuses)

    def refuse(path: str, *more: object, **named: object) -> object:
        if refuses == "link" or more[0] & _NAMELESS == _NAMELESS:  # type: ignore[operator]
            raise OSError(errno.EOPNOTSUPP, "no such thing here")
        return theirs(path, *more, **named)

    monkeypatch.setattr(os, refuses, refuse)
    write_whole(str(tmp_path / ".part"), str(tmp_path / "1.png"), b"cutout")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"1.png": b"cutout"}


def test_a_killed_writers_leftover_lies_under_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write("hour/batch/1", b"x")
    assert len(keys(store, "hour/batch")) == 1
    assert store.delete_folder("hour").objects == 1


@pytest.mark.parametrize("root", ["ListVersionsResult", "ListObjectVersionsResult"])
@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
def test_a_page_of_versions_is_read_whatever_the_server_calls_it(root: str, space: str) -> None:
    body = (
        f"<{root}{space}><Name>b</Name>"
        "<Version><Key>a</Key><VersionId>1</VersionId><Size>7</Size></Version>"
        f"<DeleteMarker><Key>b</Key><VersionId>2</VersionId></DeleteMarker></{root}>"
    )
    answer, page = {"status_code": 200, "body": body.encode()}, {}
    _read_page(answer, page)
    assert list(_listed(page)) == [StoredObject("a", 7, "1", Kind.VERSION), StoredObject("b", 0, "2", Kind.MARKER)]
    assert b"<Key>" not in answer["body"]


@pytest.mark.parametrize(
    "odd",
    [
        "<Version><Key><![CDATA[a]]></Key><VersionId>1</VersionId><Size>7</Size></Version>",
        "<Version><Key>a&amp;b</Key><VersionId>1</VersionId><Size>7</Size></Version>",
        "<Version><!-- <Key>other</Key> --><Key>a</Key><VersionId>1</VersionId><Size>7</Size></Version>",
        '<Version xmlns="x"><Key>a</Key><VersionId>1</VersionId><Size>7</Size></Version>',
        "<DeleteMarker><Key>a</Key></DeleteMarker>",
    ],
)
def test_a_version_that_is_not_written_plainly_is_left_to_botocore(odd: str) -> None:
    plain = "<Version><Key>z%2By+x</Key><VersionId>1</VersionId><Size>7</Size></Version>\n"
    kept = f"<Versions><EncodingType>url</EncodingType>{odd}"
    answer, page = {"status_code": 200, "body": f"{kept}{plain}</Versions>".encode()}, {}
    _read_page(answer, page)
    assert answer["body"].decode() == f"{kept}</Versions>"
    assert list(_listed(page)) == [StoredObject("z+y x", 7, "1", Kind.VERSION)]


def test_a_page_that_was_torn_or_read_by_somebody_else_hides_nothing() -> None:
    torn = {"status_code": 200, "body": b"<ListVersionsResult><Version><Key>a"}
    page: dict[str, object] = {}
    _read_page(torn, page)
    assert (list(_listed(page)), torn["body"]) == ([], b"<ListVersionsResult><Version><Key>a"), "botocore says so"
    theirs = {
        "Versions": [{"Key": "b", "VersionId": "1", "Size": 7}],
        "DeleteMarkers": [{"Key": "a", "VersionId": "2"}],
    }
    assert list(_listed(theirs)) == [StoredObject("a", 0, "2", Kind.MARKER), StoredObject("b", 7, "1", Kind.VERSION)]


def test_a_folder_that_another_cleanup_takes_away_while_it_is_looked_at_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cleanups at once do no harm: neither is a failed one for it."""
    (tmp_path / "hour" / "batch").mkdir(parents=True)
    looked = os.lstat

    def taken_away(path: str, **how: int) -> os.stat_result:
        found = looked(path, **how)
        if str(path).endswith("batch"):
            with suppress(FileNotFoundError):
                os.rmdir(path)
        return found

    monkeypatch.setattr(os, "lstat", taken_away)
    assert list(ObjectStore(Folder(str(tmp_path))).walk("hour/batch")) == []
