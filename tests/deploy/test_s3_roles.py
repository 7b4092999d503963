"""The bucket policies of batches and of noted withdrawals, on a server that enforces them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest

from flows.parts import open_parts
from portal.training import open_lake
from schemas.clock import system_clock
from schemas.errors import NotFound, StoreFault
from schemas.industries import Industry
from store.objects import ObjectStore, open_store
from store.settings import Settings
from tests.deploy.files import BASE, DEPLOY, ROOT
from tests.store import ceph
from tests.store.conftest import ceph_bucket, s3_of

POLICIES = DEPLOY / "s3-policies"
ROLES = ("PORTAL", "WORKER", "FLOWS", "CLEANUP", "READER")
OTHER, OWNER = "arn:aws:iam:::user/other", "arn:aws:iam:::user/tests"
PLACES = {"TRANSIENT": "batches", "LAKE": "lake", "SUPPRESSIONS": "suppressions"}


def seen_by_another(policy: str) -> tuple[ObjectStore, ObjectStore]:
    """A bucket as its owner sees it, and as another user does who has this policy alone."""
    url, settings = ceph_bucket()
    owner = open_store(url, settings)
    s3 = s3_of(owner)
    who = dict.fromkeys(ROLES, OTHER)
    text = Template((POLICIES / policy).read_text()).substitute(PLACES | who, BUCKET=s3.bucket)
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
    ("policy", "under", "may"),
    [
        ("transient-worker.json", "batches", {"write", "read", "list", "delete"}),
        ("transient-flows.json", "batches", {"write", "read", "list", "delete"}),
        ("transient-cleanup.json", "batches", {"list", "delete"}),
        ("suppressions.json", "suppressions", {"write", "read", "list"}),
        ("lake-worker.json", "lake/industry=studio", {"write"}),
        ("lake-reader.json", "lake/industry=studio", {"read"}),
        ("lake-compactor.json", "lake/industry=studio", {"write", "read", "list", "delete"}),
        ("lake-cleanup.json", "lake/industry=studio", {"list", "delete"}),
    ],
)
def test_each_role_may_do_its_own_work_and_no_more(policy: str, under: str, may: set[str]) -> None:
    owner, other = seen_by_another(policy)
    owner.write(f"{under}/one", b"x")
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: other.write(f"{under}/two", b"x"),
        "read": lambda: other.read(f"{under}/one"),
        "list": lambda: list(other.files(under)),
        "delete": lambda: other.delete([f"{under}/one"]),
    }
    assert {name for name, attempt in tries.items() if is_allowed(attempt)} == may
    with pytest.raises(StoreFault):
        other.write("elsewhere/one", b"x")


def test_the_cleanup_deletes_nothing_beside_the_lake() -> None:
    owner, other = seen_by_another("lake-cleanup.json")
    owner.write("elsewhere/one", b"x")
    with pytest.raises(StoreFault):
        other.delete(["elsewhere/one"])
    assert owner.read("elsewhere/one") == b"x"


def test_every_policy_names_whom_it_lets_do_what() -> None:
    policies = {path.name: json.loads(path.read_text()) for path in POLICIES.glob("*.json")}
    for name, policy in policies.items():
        for statement in policy["Statement"]:
            assert all(re.fullmatch(r"\$\{[A-Z]+\}", each) for each in statement["Principal"]["AWS"]), name
            assert not any("*" in action for action in statement["Action"]), name
    assert len(policies) == 9


def test_a_worker_is_told_that_something_is_absent_and_not_that_it_may_not_know() -> None:
    _, other = seen_by_another("transient-worker.json")
    with pytest.raises(NotFound):
        other.read("batches/none")


@pytest.fixture(scope="module")
def buckets() -> dict[str, str]:
    """A bucket for batches and one for the lake, without policies yet: their names."""
    return {name: s3_of(open_store(*ceph_bucket())).bucket for name in ("transient", "lake")}


def merged(command: str, names: dict[str, str]) -> str:
    """What a command of docs/lake.md makes of the policies, but for TLS: this server has none."""
    environment = names | {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", command], cwd=POLICIES, env=environment, capture_output=True, check=True)
    policy = json.loads(done.stdout)
    sids = [each["Sid"] for each in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    assert len(done.stdout) < 20_000, "AWS takes no more"
    policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] != "OnlyOverTls"]
    return json.dumps(policy)


@pytest.mark.parametrize("role", ["PORTAL", "FLOWS", "CLEANUP", "READER"])
def test_each_role_that_opens_the_parts_may_look_at_what_it_opens(
    buckets: dict[str, str], role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all policies of a bucket in one, as it must be: a bucket has exactly one."""
    lines = re.findall(r"^(jq .*)$", (ROOT / "docs" / "lake.md").read_text(), re.M)
    assert len(lines) == len(buckets)
    for (name, bucket), line in zip(buckets.items(), lines, strict=True):
        assert f"{name}-*.json" in line
        command = line.partition(" > ")[0].replace(f"BUCKET=bgbatch-{name}", f"BUCKET={bucket}")
        who = {each: OTHER if each == role else OWNER for each in ROLES}
        owner = Settings(s3_endpoint=ceph.server(), s3_key=ceph.KEY, s3_secret=ceph.SECRET)
        s3_of(open_store(f"s3://{bucket}", owner)).call("put_bucket_policy", Policy=merged(command, PLACES | who))
    said = {
        "HOME": str(tmp_path),
        "S3_ENDPOINT": ceph.server(),
        "S3_KEY": ceph.OTHER_KEY,
        "S3_SECRET": ceph.OTHER_SECRET,
        "TRANSIENT_URL": f"s3://{buckets['transient']}/batches",
        "LAKE_URL": f"s3://{buckets['lake']}/lake",
        "SUPPRESSIONS_URL": f"s3://{buckets['lake']}/suppressions",
    }
    for name, value in said.items():
        monkeypatch.setenv(f"BGBATCH_{name}", value)
    open_parts(Settings(), system_clock).records.engine.dispose()
    if role == "READER":
        assert open_lake().dataset(industry=Industry.AUTOMOTIVE).to_table().num_rows == 0


def test_each_roles_policies_are_listed_where_its_key_is_made() -> None:
    """Each policy's principals, against the table of secrets."""
    rows = dict(re.findall(r"^\| `([a-z]+)` \|(.+)\|$", (BASE / "secrets.md").read_text(), re.M))
    listed = {name: set(re.findall(r"`(?:deploy/s3-policies/)?([a-z-]+\.json)`", row)) for name, row in rows.items()}
    for secret, role in (("portal", "PORTAL"), ("dispatcher", "FLOWS"), ("worker", "WORKER"), ("cleanup", "CLEANUP")):
        named = {path.name for path in POLICIES.glob("*.json") if f"${{{role}}}" in path.read_text()}
        assert listed[secret] == named, secret
