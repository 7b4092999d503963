"""Objects on S3. What S3 does not show in a plain listing is listed here: versions, delete markers, unfinished uploads.

Deleting is done with `delete_objects`, whose `Errors` are read: s3fs's own `rm` hides them (seen on Ceph: three keys
denied by policy, no exception, all three still there) and leaves every version readable.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from heapq import merge
from typing import Any

import s3fs
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserError
from pydantic import SecretStr

from store.objects.s3_listing import LISTED, quick_session
from store.objects.storage import Children, Kind, Refused, StoredObject, error_code
from store.settings import Settings

_Reply = dict[str, Any]
_ABSENT = {"NoSuchKey", "NoSuchVersion", "NoSuchUpload"}
_KINDS = (("Contents", Kind.OBJECT), ("Versions", Kind.VERSION), ("DeleteMarkers", Kind.MARKER))

_NO_ANSWER = (BotoCoreError, ResponseParserError, ClientError, KeyError, ValueError, RecursionError)
"""No connection, half an answer, one that breaks off or lacks what each has: these are no `OSError`s by themselves.

A recursion is a redirect that does not say where to: aiobotocore asks for it where it was sent away.
"""
_IN_LISTINGS = {"IsTruncated", "Name", "Bucket"}
"""One of these is in each; not all servers say of their uploads that this is the last page."""
_IN_ENTRIES = {
    "Contents": {"Key", "Size"},
    "Versions": {"Key"},
    "DeleteMarkers": {"Key"},
    "CommonPrefixes": {"Prefix"},
    "Uploads": {"Key", "UploadId"},
}
"""What each thing in a listing has."""
_MOST_IN_ONE = 5 * 2**30
"""Bytes that S3 takes in one request. In parts, a writer that is killed leaves those that came: they are in no listing,
and in a customer's own place nobody would look for them."""
_NOT_IN_XML = re.compile("[^\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""A stray whose key has such a character would spoil the whole request that names it."""


class S3:
    """A `Storage` on a bucket. `filesystem` and `root` are what other readers can use."""

    MOST_AT_ONCE = 1000
    AT_ONCE = 8

    def __init__(self, url: str, settings: Settings) -> None:
        self.filesystem = _filesystem(settings.s3_endpoint, settings.s3_key, settings.s3_secret)
        self.root = url.rstrip("/")
        self.bucket, _, inside = self.root.removeprefix("s3://").partition("/")
        self._inside = f"{inside}/" if inside else ""
        self._lists_versions = True

    def call(self, method: str, **arguments: object) -> _Reply:
        """One request about this bucket. Raises `OSError`, `FileNotFoundError`."""
        with _answered():
            reply: _Reply = self.filesystem.call_s3(method, Bucket=self.bucket, **arguments)
        return reply

    def pages(self, method: str, after: Callable[[_Reply], dict[str, str]], **arguments: object) -> Iterator[_Reply]:
        """Every page of a listing. `after`: where to go on, given a page that is not the last.

        Raises `OSError` for an answer that is no listing: it would pass for one of nothing at all.
        """
        following: dict[str, str] = {}
        been: set[tuple[str, ...]] = set()  # a listing that goes round would have no end
        while True:
            page = self.call(method, **arguments, **following)
            with _answered():
                following = after(page) if page.get("IsTruncated") else {}
            mark = tuple(following.values())
            if not page.keys() & _IN_LISTINGS or mark in been or not _is_whole(page):
                raise OSError(errno.EBADMSG, "no listing, or one that does not go on")
            been.add(mark)
            yield page
            if not following:
                return

    def put(self, key: str, data: bytes) -> None:
        """One whole object. An open file that is closed by an exception would publish half of it."""
        with _answered():
            self.filesystem.pipe_file(self._path(key), data, chunksize=_MOST_IN_ONE)

    def get(self, key: str) -> bytes:
        """The bytes at `key`."""
        with _answered():
            # One at a time: for several, s3fs asks for the size first.
            data: bytes = self.filesystem.cat_file(self._path(key), max_concurrency=1)
        return data

    def get_start(self, key: str, most: int) -> bytes:
        """The first `most` bytes at `key`, in one request: asked for its size before, it may be another one by then."""
        try:
            with _answered():
                data: bytes = self.filesystem.cat_file(self._path(key), start=0, end=most)
        except OSError as error:
            if error_code(error) != "InvalidRange":
                raise
            return b""  # what is empty has no first byte
        return data

    def has(self, key: str) -> bool:
        """Whether an object can be read at `key`."""
        try:
            self.call("head_object", Key=self._inside + key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Bytes of the object at `key`."""
        with _answered():
            return int(self.call("head_object", Key=self._inside + key)["ContentLength"])

    def children(self, prefix: str) -> Children:
        """Names directly under `prefix`; a folder that holds old versions or an unfinished upload alone is one too.

        Nameless are a console's mark of the folder itself, and a key with two slashes.
        """
        start = self._start(prefix)
        folders: set[str] = set()
        files: set[str] = set()
        # Uploads first, as in `find`. With a delimiter, Ceph hides those that lie deeper.
        for page in self._upload_pages(start, partial(_after_folder, start=start)):
            for upload in page.get("Uploads", ()):
                name, slash, _ = upload["Key"].removeprefix(start).partition("/")
                (folders if slash else files).add(name)
        for page in self._pages(start, Delimiter="/"):
            folders.update(each["Prefix"].removeprefix(start).rstrip("/") for each in page.get("CommonPrefixes", ()))
            files.update(each.key.removeprefix(start) for each in _listed(page))
        return Children(tuple(sorted(folders - {""})), tuple(sorted(files - {""})), "" in folders | files)

    def find(self, prefix: str) -> Iterator[StoredObject]:
        """Every version, marker and unfinished upload under `prefix`, or at exactly that key, in the order of keys."""
        here = self._inside + prefix
        uploads = list(self._uploads(here))  # first: one that completes meanwhile is seen as an object
        yield from merge(uploads, self._finished(here), key=_by_key)

    def find_among(self, folder: str, names: Collection[str]) -> Iterator[StoredObject]:
        """One listing of `folder` from its start to the last of `names`: what is due in an hour stands at its start.

        A name that did not turn up by then is listed by itself: not every server's listings are in order.
        """
        inside, missing = f"{folder}/", set(names)
        end = max((f"{inside}{name}/" for name in names), default="")
        for each in self.find(folder) if names else ():
            if each.key > end and not each.key.startswith(end):
                break
            name = each.key.removeprefix(inside).partition("/")[0]
            if name in names:
                missing.discard(name)
                yield each
        for name in sorted(missing):
            yield from self.find(inside + name)

    def remove(self, objects: Sequence[StoredObject]) -> list[Refused]:
        """Delete by key and version in one request; abort uploads one by one. A failed request has deleted nothing."""
        refused: list[Refused] = []
        named: dict[tuple[str, str], StoredObject] = {}
        for each in objects:
            key = self._inside + each.key
            if each.kind is Kind.UPLOAD:
                refused += self._alone(each, "abort_multipart_upload", Key=key, UploadId=each.version)
            elif _NOT_IN_XML.search(key):
                refused += self._alone(each, "delete_object", **_identifier(key, each.version))
            else:
                named[key, each.version] = each
        if not named:
            return refused
        identifiers = [_identifier(key, version) for key, version in named]
        try:
            reply = self.call("delete_objects", Delete={"Objects": identifiers, "Quiet": True})
        except OSError as error:
            return refused + [Refused(each, error_code(error)) for each in named.values()]
        for failure in reply.get("Errors", ()):
            found = named.get((failure.get("Key", ""), failure.get("VersionId", "")))
            if failure.get("Code") not in _ABSENT:
                refused.append(Refused(found or StoredObject("", 0), failure.get("Code", "unknown")))
        return refused

    def tidy(self, prefix: str) -> None:
        """S3 has no folders to remove."""

    def now(self) -> datetime:
        """The clock in the server's `Date` header."""
        try:
            headers = self.call("head_bucket")["ResponseMetadata"]["HTTPHeaders"]
            return parsedate_to_datetime(headers["date"]).astimezone(UTC)
        except (KeyError, ValueError) as error:
            raise OSError(errno.EIO, "the server tells no time") from error

    def link(self, key: str, seconds: int) -> str | None:
        """A presigned address, whose answer no browser and no proxy keeps."""
        address: str = self.filesystem.sign(self._path(key), expiration=seconds, ResponseCacheControl="no-store")
        return address

    def _pages(self, start: str, **arguments: object) -> Iterator[_Reply]:
        """Every page of a listing, of all versions where the server knows of any."""
        if self._lists_versions:
            try:
                yield from self.pages("list_object_versions", _after_version, Prefix=start, **arguments)
                return
            except OSError as error:
                if error_code(error) != "NotImplemented":
                    raise
                # Asked anew by each process: a server that keeps versions lists them.
                self._lists_versions = False
        yield from self.pages("list_objects_v2", after_object, Prefix=start, **arguments)

    def _finished(self, here: str) -> Iterator[StoredObject]:
        """Every object, version and marker, in the order of keys."""
        for page in self._pages(here):
            for each in _listed(page):
                if self._lies_at(each.key, here):
                    key = each.key.removeprefix(self._inside)
                    yield StoredObject(key, each.size, each.version, each.kind)

    def _uploads(self, here: str) -> Iterator[StoredObject]:
        """Every unfinished upload, in the order of keys."""
        for page in self._upload_pages(here, _after_upload):
            for each in page.get("Uploads", ()):
                if self._lies_at(each["Key"], here):
                    size = self._size_so_far(each["Key"], each["UploadId"])
                    yield StoredObject(each["Key"].removeprefix(self._inside), size, each["UploadId"], Kind.UPLOAD)

    def _upload_pages(self, here: str, after: Callable[[_Reply], dict[str, str]]) -> Iterator[_Reply]:
        """Pages of unfinished uploads. `after`: where to go on, given a page that is not the last."""
        try:
            yield from self.pages("list_multipart_uploads", after, Prefix=here)
        except OSError as error:
            if error_code(error) not in ("NotImplemented", "NoSuchUpload"):  # rclone says so when there is none
                raise

    def _size_so_far(self, key: str, upload_id: str) -> int:
        """What the parts hold that have arrived (the first thousand of them)."""
        try:
            return sum(each["Size"] for each in self.call("list_parts", Key=key, UploadId=upload_id).get("Parts", ()))
        except OSError:
            return 0  # completed or aborted meanwhile; a receipt counts it without its bytes

    def _alone(self, found: StoredObject, method: str, **which: str) -> Iterator[Refused]:
        try:
            self.call(method, **which)
        except FileNotFoundError:
            return
        except OSError as error:
            if error_code(error) not in _ABSENT:
                yield Refused(found, error_code(error))

    def _start(self, prefix: str) -> str:
        return f"{self._inside}{prefix}/" if prefix else self._inside

    def _lies_at(self, key: str, here: str) -> bool:
        """S3 matches prefixes by letter: `2026/a` would also find `2026/ab`."""
        return key == here or here in ("", self._inside) or key.startswith(here if here.endswith("/") else f"{here}/")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"


class _ByWholeKeys(s3fs.S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """By itself s3fs takes the key `1.jpg?versionId=2.jpg`, which a customer's photo may have, for `1.jpg`."""

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = self._strip_protocol(path).partition("/")
        return bucket, key, None


@cache
def _filesystem(endpoint: str, key: str, secret: SecretStr) -> s3fs.S3FileSystem:
    """One for each process, which never travels: pickled, it would carry the secret into Ray's object store; forked, it
    does nothing.

    Its first request costs a tenth of a second of CPU, more than a call to an actor on a GPU may take.
    """
    filesystem = _ByWholeKeys(
        session=quick_session(),
        key=key or None,
        secret=secret.get_secret_value() or None,
        endpoint_url=endpoint or None,
        use_listings_cache=False,  # it shows deleted objects and hides new ones
        skip_instance_cache=True,  # it would forget what is set below
        config_kwargs={
            "signature_version": "s3v4",  # else links get the older one, which new buckets of AWS and others refuse
            "retries": {"max_attempts": 3},
            "connect_timeout": 5,
            "read_timeout": 60,
            "max_pool_connections": 128,  # a GPU's actor has two calls, which read and write with 32 threads each
            # Over TLS botocore puts a checksum behind a body of unsaid length, which other servers than AWS refuse.
            "request_checksum_calculation": "when_required" if endpoint else "when_supported",
        },
    )
    filesystem.retries = 2  # on top of botocore's: five times three tries took 35 s against a constant 503
    _kept.append(filesystem)
    return filesystem


_kept: list[s3fs.S3FileSystem] = []
"""A forked process must not let its parent's go: closing its connections takes them off the epoll that both share, and
the parent waits a minute for an answer that is there."""

os.register_at_fork(after_in_child=_filesystem.cache_clear)


def _listed(page: _Reply) -> Sequence[StoredObject]:
    """What a page of either listing shows, with whole keys, in the order of keys: whoever read it."""
    found: Sequence[StoredObject] = page.get(LISTED, ())
    rest = [
        StoredObject(each["Key"], each.get("Size", 0), each.get("VersionId", ""), kind)
        for listed, kind in _KINDS
        for each in page.get(listed, ())
    ]
    return sorted([*found, *rest], key=_by_key) if rest else found


def _is_whole(page: _Reply) -> bool:
    return all(needed <= each.keys() for name, needed in _IN_ENTRIES.items() for each in page.get(name, ()))


def after_object(page: _Reply) -> dict[str, str]:
    """Where a listing of objects goes on."""
    return {"ContinuationToken": page["NextContinuationToken"]}


def _after_version(page: _Reply) -> dict[str, str]:
    return {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}


@contextmanager
def _answered() -> Iterator[None]:
    """What is no answer is an `OSError`."""
    try:
        yield
    except _NO_ANSWER as error:
        raise OSError(errno.EIO, type(error).__name__) from error


def _identifier(key: str, version: str) -> dict[str, str]:
    return {"Key": key} | ({"VersionId": version} if version else {})


def _after_upload(page: _Reply) -> dict[str, str]:
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _after_folder(page: _Reply, start: str) -> dict[str, str]:
    """Go on behind all that lies in the folder of the last one: its name is known by now."""
    last = page["NextKeyMarker"]
    name, slash, _ = last.removeprefix(start).partition("/")
    return {"KeyMarker": f"{start}{name}/\U0010ffff" if slash else last}


def _by_key(found: StoredObject) -> str:
    return found.key
