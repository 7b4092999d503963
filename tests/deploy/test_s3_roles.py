"""The bucket policies of batches and of noted withdrawals, on a server that enforces them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest

from schemas.errors import NotFound, StoreFault
from store.objects import ObjectStore, open_store
from store.settings import Settings
from tests.deploy.files import DEPLOY
from tests.store import ceph
from tests.store.conftest import ceph_bucket, s3_of

ROLES = ("WORKER", "FLOWS", "CLEANUP")


def seen_by_another(policy: str, prefix: str) -> tuple[ObjectStore, ObjectStore]:
    """A prefix as its owner sees it, and as another user does who has this policy alone."""
    url, settings = ceph_bucket()
    owner = open_store(url, settings)
    s3 = s3_of(owner)
    names = {"BUCKET": s3.bucket, "TRANSIENT": prefix, "SUPPRESSIONS": prefix}
    who = dict.fromkeys(ROLES, "arn:aws:iam:::user/other")
    text = Template((DEPLOY / "s3-policies" / policy).read_text()).substitute(names | who)
    s3.call("put_bucket_policy", Policy=text)
    other = Settings(s3_endpoint=ceph.server(), s3_key=ceph.OTHER_KEY, s3_secret=ceph.OTHER_SECRET)
    root = f"s3://{s3.bucket}"
    both = open_store(root, settings), ObjectStore(open_store(root, other).storage, pause=lambda seconds: None)
    return both


def is_allowed(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except StoreFault:
        return False
    return True


@pytest.mark.parametrize(
    ("policy", "may"),
    [
        ("transient-worker.json", {"write", "read", "list", "delete"}),
        ("transient-flows.json", {"write", "read", "list", "delete"}),
        ("transient-cleanup.json", {"list", "delete"}),
        ("suppressions.json", {"write", "read", "list"}),
    ],
)
def test_each_role_may_do_its_own_work_and_no_more(policy: str, may: set[str], tmp_path: Path) -> None:
    owner, other = seen_by_another(policy, "batches")
    owner.write("batches/one", b"x")
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: other.write("batches/two", b"x"),
        "read": lambda: other.read("batches/one"),
        "list": lambda: list(other.files("batches")),
        "delete": lambda: other.delete(["batches/one"]),
    }
    assert {name for name, attempt in tries.items() if is_allowed(attempt)} == may
    with pytest.raises(StoreFault):
        other.write("elsewhere/one", b"x")


def test_a_worker_is_told_that_something_is_absent_and_not_that_it_may_not_know() -> None:
    _, other = seen_by_another("transient-worker.json", "batches")
    with pytest.raises(NotFound):
        other.read("batches/none")
