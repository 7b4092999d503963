from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from datetime import timedelta

import pytest

from schemas.batch import Stamp
from schemas.errors import PastDeadline
from schemas.ids import received_at
from schemas.options import CutoutOptions
from store.objects.bucket_check import check_bucket
from store.objects.object_store import ObjectStore
from store.transient.transient_store import TransientStore, source_key
from tests.deploy.files import COMPOSE, DEPLOY, called
from tests.store.conftest import NOON, batch_at, ceph_bucket, later, open_store, s3_of

STAMP = Stamp(
    batch_id=batch_at(NOON),
    received_at=received_at(batch_at(NOON)),
    purge_at=later(hours=23),
    industry=None,
    grant_id=None,
    options=CutoutOptions(),
)
KEY = source_key(STAMP.batch_id, 1)


def test_the_lifecycle_file_is_applied_and_read_back(versioned: ObjectStore) -> None:
    rules = json.loads((DEPLOY / "s3/transient-lifecycle.json").read_text())
    s3_of(versioned).call("put_bucket_lifecycle_configuration", LifecycleConfiguration=rules)
    told = s3_of(versioned).call("get_bucket_lifecycle_configuration")["Rules"]
    by_id = {rule["ID"]: rule for rule in told}
    assert by_id["bgbatch-backstop"]["Expiration"] == {"Days": 1}
    assert by_id["bgbatch-backstop"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert by_id["bgbatch-backstop"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert by_id["bgbatch-markers"]["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert all(rule["Status"] == "Enabled" for rule in told)


def test_the_backstop_takes_in_whatever_either_deployment_writes() -> None:
    rules = json.loads((DEPLOY / "s3/transient-lifecycle.json").read_text())["Rules"]
    compose = COMPOSE["services"]["portal"]["environment"]["BGBATCH_TRANSIENT_URL"]
    cluster = called("ConfigMap", "settings")["data"]["BGBATCH_TRANSIENT_URL"]
    for url in (compose, cluster):
        _, _, inside = url.removeprefix("s3://").partition("/")
        assert all(f"{inside}/{KEY}".startswith(rule["Filter"]["Prefix"]) for rule in rules)


def test_the_bucket_policy_is_applied_and_enforced() -> None:
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    s3 = s3_of(store)
    store.write(KEY, b"x")
    policy = json.loads((DEPLOY / "s3/transient-policy.json").read_text().replace("${BUCKET}", s3.bucket))
    policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] != "OnlyOverTls"]  # this server has none
    s3.call("put_bucket_policy", Policy=json.dumps(policy))
    assert json.loads(s3.call("get_bucket_policy")["Policy"]) == policy
    with pytest.raises(PermissionError):
        s3.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    check_bucket(store, settings)
    store.delete_folder("")


def test_nothing_is_written_past_the_deadline(objects: ObjectStore) -> None:
    TransientStore(objects, lambda: later(hours=22, minutes=59)).write(STAMP, KEY, b"x")
    with pytest.raises(PastDeadline):
        TransientStore(objects, lambda: later(hours=23)).write(STAMP, KEY, b"y")
    assert objects.read(KEY) == b"x"


def test_a_write_that_ends_past_the_deadline_is_taken_back(objects: ObjectStore) -> None:
    moments = iter([later(hours=22, minutes=59), later(hours=23, minutes=1)])
    with pytest.raises(PastDeadline):
        TransientStore(objects, lambda: next(moments)).write(STAMP, KEY, b"x")
    assert list(objects.walk("")) == []


def test_a_link_ends_with_its_batch_at_the_latest() -> None:
    store = open_store(*ceph_bucket())
    store.write(KEY, b"photo")

    def link(left: timedelta) -> str:
        made = TransientStore(store, lambda: STAMP.purge_at - left).link(STAMP, KEY, timedelta(hours=1))
        assert made is not None
        return made

    with urllib.request.urlopen(link(timedelta(minutes=10))) as answer:
        assert answer.read() == b"photo"
        assert answer.headers["cache-control"] == "no-store", "nobody on the way may keep it longer"
    soon_over = link(timedelta(seconds=2))
    time.sleep(3)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(soon_over)
    assert refusal.value.code == 403
    with pytest.raises(PastDeadline):
        TransientStore(store, lambda: STAMP.purge_at).link(STAMP, KEY, timedelta(hours=1))
