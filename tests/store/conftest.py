"""Object stores to work with: a folder, a quick S3 server, and a Ceph gateway with versions and unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from schemas.batch import Stamp
from schemas.ids import BatchId, new_batch_id
from schemas.options import CutoutOptions
from store.objects.object_store import ObjectStore
from store.objects.object_store import open_store as open_the_store
from store.objects.s3 import S3
from store.records.database import Records, open_records
from store.settings import Settings
from tests.records import at_home
from tests.store import ceph, rclone

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def later(hours: float = 0, minutes: float = 0) -> datetime:
    return NOON + timedelta(hours=hours, minutes=minutes)


def batch_at(moment: datetime, seed: int = 1) -> BatchId:
    return new_batch_id(moment, Random(seed).randbytes)


def stamp() -> Stamp:
    """Of a batch that is received at noon."""
    return Stamp(
        batch_id=batch_at(NOON),
        received_at=NOON,
        purge_at=later(hours=23),
        industry=None,
        grant_id=None,
        options=CutoutOptions(),
    )


def ceph_bucket(**how: object) -> tuple[str, Settings]:
    """The address of a folder in a new bucket, and the settings that reach it."""
    settings = Settings(s3_endpoint=ceph.server(), s3_key=ceph.KEY, s3_secret=ceph.SECRET)
    return _new_bucket(settings, ceph.new_bucket_name(), **how), settings


def rclone_bucket() -> tuple[str, Settings]:
    settings = Settings(s3_endpoint=rclone.server(), s3_key=rclone.KEY, s3_secret=rclone.SECRET)
    return _new_bucket(settings, rclone.new_bucket_name()), settings


def _new_bucket(settings: Settings, name: str, **how: object) -> str:
    S3(f"s3://{name}", settings).call("create_bucket", **how)
    return f"s3://{name}/transient"


@pytest.fixture(params=["folder", "rclone", "ceph", "ceph-versioned"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "transient"), Settings(home=tmp_path))
    url, settings = rclone_bucket() if request.param == "rclone" else ceph_bucket()
    store = open_store(url, settings)
    if request.param == "ceph-versioned":
        s3_of(store).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    return store


@pytest.fixture
def versioned() -> ObjectStore:
    """A store in a bucket that keeps versions."""
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    s3_of(store).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    return store


def open_store(url: str, settings: Settings) -> ObjectStore:
    """Without waiting between tries."""
    return ObjectStore(open_the_store(url, settings).storage, pause=lambda seconds: None)


def s3_of(store: ObjectStore) -> S3:
    assert isinstance(store.storage, S3)
    return store.storage


def begin_upload(store: ObjectStore, key: str, part: bytes) -> str:
    """What a killed writer leaves: an upload of one part, never completed."""
    s3, key = s3_of(store), f"transient/{key}"
    upload: str = s3.call("create_multipart_upload", Key=key)["UploadId"]
    s3.call("upload_part", Key=key, UploadId=upload, PartNumber=1, Body=part)
    return upload


def deny(store: ObjectStore, resource: str) -> None:
    statement = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", '
        f'"Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], "Resource": "{resource}"}}]}}'
    )
    s3_of(store).call("put_bucket_policy", Policy=statement)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    records = open_records(at_home(tmp_path))
    yield records
    records.engine.dispose()
