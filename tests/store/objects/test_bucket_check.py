from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from schemas.errors import BucketUnfit
from store.objects.bucket_check import BucketFacts, check_bucket, judge
from store.objects.object_store import ObjectStore
from store.settings import Settings
from tests.store.conftest import ceph_bucket, open_store, rclone_bucket, s3_of


@pytest.mark.parametrize(
    ("facts", "how_to_mend"),
    [
        (BucketFacts(versioning="Enabled"), "BGBATCH_ALLOW_VERSIONED"),
        (BucketFacts(versioning="Suspended"), "BGBATCH_ALLOW_VERSIONED"),
        (BucketFacts(versioning="Enabled", mfa_delete=True), "second factor"),
        (BucketFacts(object_lock=True), "Object Lock"),
        (BucketFacts(replication=True), "replication rules"),
        (BucketFacts(public=True), "block public access"),
        (BucketFacts(is_google=True), "--clear-soft-delete"),
        (BucketFacts(versioning=None), "s3:GetBucketVersioning"),
        (BucketFacts(object_lock=None), "s3:GetBucketObjectLockConfiguration"),
        (BucketFacts(replication=None), "s3:GetReplicationConfiguration"),
        (BucketFacts(public=None), "s3:GetBucketAcl"),
    ],
)
def test_a_bucket_that_would_break_the_promise_is_refused_with_a_remedy(facts: BucketFacts, how_to_mend: str) -> None:
    assert how_to_mend in " ".join(judge(facts, allow_versioned=False, soft_delete_off=False))


def test_what_was_allowed_is_allowed_and_no_more() -> None:
    assert judge(BucketFacts(), allow_versioned=False, soft_delete_off=False) == []
    assert judge(BucketFacts(versioning="Enabled"), allow_versioned=True, soft_delete_off=False) == []
    assert judge(BucketFacts(is_google=True), allow_versioned=False, soft_delete_off=True) == []
    spoilt = BucketFacts(versioning="Enabled", object_lock=True, mfa_delete=True)
    assert len(judge(spoilt, allow_versioned=True, soft_delete_off=True)) == 2


def test_a_plain_bucket_is_fit() -> None:
    for url, settings in (ceph_bucket(), rclone_bucket()):
        check_bucket(open_store(url, settings), settings)


def test_a_folder_is_fit(tmp_path: Path) -> None:
    check_bucket(open_store(str(tmp_path), Settings(home=tmp_path)), Settings())


def _version(store: ObjectStore) -> None:
    s3_of(store).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})


def _suspend(store: ObjectStore) -> None:
    _version(store)
    s3_of(store).call("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})


def _open_to_all(store: ObjectStore) -> None:
    s3_of(store).call("put_bucket_acl", ACL="public-read")


def _open_by_policy(store: ObjectStore) -> None:
    resource = f"arn:aws:s3:::{s3_of(store).bucket}/*"
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3_of(store).call("put_bucket_policy", Policy=json.dumps(policy))


@pytest.mark.parametrize("spoil", [_version, _suspend, _open_to_all, _open_by_policy])
def test_a_real_bucket_that_is_unfit_is_refused(spoil: Callable[[ObjectStore], None]) -> None:
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    spoil(store)
    with pytest.raises(BucketUnfit):
        check_bucket(store, settings)


def test_a_real_bucket_with_object_lock_is_refused() -> None:
    url, settings = ceph_bucket(ObjectLockEnabledForBucket=True)
    with pytest.raises(BucketUnfit, match="Object Lock"):
        check_bucket(open_store(url, settings), settings)


def test_versions_are_taken_when_they_are_allowed() -> None:
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    _version(store)
    check_bucket(store, settings.model_copy(update={"allow_versioned": True}))


def test_a_key_that_may_not_look_is_refused() -> None:
    from tests.store import ceph

    url, settings = ceph_bucket()
    other = settings.model_copy(
        update={"s3_key": ceph.OTHER_KEY, "s3_secret": type(settings.s3_secret)(ceph.OTHER_SECRET)}
    )
    with pytest.raises(BucketUnfit, match="cannot be read"):
        check_bucket(open_store(url, other), other)


@pytest.mark.parametrize(
    "kept_back",
    [
        "get_bucket_versioning",
        "get_object_lock_configuration",
        "get_bucket_replication",
        "get_bucket_policy_status",
        "get_bucket_policy",
        "get_bucket_acl",
    ],
)
def test_a_single_answer_that_is_kept_back_counts_against_the_bucket(kept_back: str) -> None:
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    s3 = s3_of(store)
    call = s3.call

    def ask(method: str, **how: object) -> dict[str, object]:
        if method == kept_back:
            denied: Any = {"Error": {"Code": "AccessDenied"}}
            raise PermissionError(13, "Access Denied") from ClientError(denied, method)
        return call(method, **how)

    s3.call = ask  # type: ignore[method-assign]
    with pytest.raises(BucketUnfit, match="cannot be read"):
        check_bucket(store, settings)


@pytest.mark.parametrize(
    "places",
    [
        {"transient_url": "s3://b", "lake_url": "s3://b/lake"},
        {"transient_url": "s3://b/x/", "lake_url": "s3://b/x"},
        {"transient_url": "s3://b/lake/transient", "lake_url": "s3://b/lake"},
        {"transient_url": "/tmp/home", "home": "/tmp/home"},
        {"transient_url": "/tmp/t", "records_url": "sqlite:////tmp/t/records.db"},
        {"transient_url": "s3://b/t", "lake_url": "s3://b/lake", "suppressions_url": "s3://b/t/suppressions"},
        {"transient_url": "s3://t", "lake_url": "s3://b", "suppressions_url": "s3://b/suppressions"},
        {"lake_url": "/tmp/lake", "suppressions_url": "file:///tmp/lake/"},
        {"lake_url": "/tmp/lake", "records_url": "sqlite:////tmp/lake/records.db"},
        {"lake_url": "/tmp/lake", "home": "/tmp/lake/home"},
    ],
)
def test_a_store_that_sweeps_strays_around_anything_else_is_refused(places: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must not lie inside"):
        Settings(**places)
    Settings(transient_url="s3://b/transient", lake_url="s3://b/lake")


def test_a_policy_that_names_all_whom_it_lets_in_is_not_public_whatever_the_server_calls_it() -> None:
    """Ceph calls each policy public that allows anything."""
    url, settings = ceph_bucket()
    store = open_store(url, settings)
    s3 = s3_of(store)
    who, where = {"AWS": ["arn:aws:iam:::user/other"]}, f"arn:aws:s3:::{s3.bucket}/*"
    statement = {"Effect": "Allow", "Principal": who, "Action": "s3:GetObject", "Resource": where}
    s3.call("put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    check_bucket(store, settings)
    for everybody in ("*", {"AWS": "*"}, {"AWS": ["arn:aws:iam:::user/other", "*"]}):
        open_to_all = [statement, statement | {"Principal": everybody}]
        s3.call("put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": open_to_all}))
        with pytest.raises(BucketUnfit, match="by everybody"):
            check_bucket(store, settings)
