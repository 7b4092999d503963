"""The bucket policies of batches and of noted withdrawals, on a server that enforces them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import Template

import pytest

from consent.suppression import open_suppressions
from flows.parts import open_parts
from lake.reading import Lake
from portal.training import open_lake
from schemas.clock import system_clock
from schemas.errors import BucketUnfit, NotFound, StoreFault
from schemas.industries import Industry
from store.objects.object_store import ObjectStore, open_store
from store.records.database import open_records
from store.settings import Settings
from tests.deploy.files import BASE, DEPLOY, ROOT
from tests.lake.conftest import build_world
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
    root = f"s3://{s3.bucket}"
    both = open_store(root, settings), ObjectStore(open_store(root, others()).storage, pause=lambda seconds: None)
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
        ("lake-flows.json", "lake/industry=studio", {"write", "read", "list", "delete"}),
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


def test_a_reconcile_by_the_cleanups_key_hears_what_is_gone_and_what_is_there_again(tmp_path: Path) -> None:
    """It may list the lake, and S3 tells nothing of a single object to who may not read it."""
    owner, _ = seen_by_another("lake-cleanup.json")
    bucket = s3_of(owner).bucket
    world = build_world(tmp_path)
    world.lake = open_store(f"s3://{bucket}/lake", owners())
    cleanup = replace(world, lake=open_store(f"s3://{bucket}/lake", others()))
    grant = world.grant()
    gone, _ = world.give(grant), world.give(grant)
    held = world.lake.read(gone.key)
    world.lake.delete([gone.key])
    assert cleanup.sweep().lost == 1
    world.lake.write(gone.key, held)
    assert cleanup.sweep().objects == 0
    assert gone.key in [each.key for each in world.reader().snapshot().files]
    world.records.engine.dispose()


def test_every_policy_names_whom_it_lets_do_what() -> None:
    policies = {path.name: json.loads(path.read_text()) for path in POLICIES.glob("*.json")}
    for name, policy in policies.items():
        for statement in policy["Statement"]:
            assert all(re.fullmatch(r"\$\{[A-Z]+\}", each) for each in statement["Principal"]["AWS"]), name
            assert not any("*" in action for action in statement["Action"]), name
    assert len(policies) == 9


@pytest.mark.parametrize(
    ("policy", "key"), [("transient-worker.json", "batches/none"), ("lake-reader.json", "lake/industry=studio/none")]
)
def test_who_reads_is_told_that_something_is_absent_and_not_that_it_may_not_know(policy: str, key: str) -> None:
    _, other = seen_by_another(policy)
    with pytest.raises(NotFound):
        other.read(key)
    assert not other.exists(key)
    with pytest.raises(NotFound):
        Lake(other, open_records(Settings(records_url="sqlite://")), tuple).open(key)


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
        put_policy(bucket, merged(command, PLACES | who))
    say_where(monkeypatch, tmp_path, buckets)
    open_parts(Settings(), system_clock).records.engine.dispose()
    if role == "READER":
        assert open_lake().dataset(industry=Industry.AUTOMOTIVE).to_table().num_rows == 0


def test_the_pull_may_do_nothing_that_it_can_do_without(
    buckets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the policies on the lake's bucket allow the reader, each is taken away by itself."""
    line = re.findall(r"^(jq .*lake-.*)$", (ROOT / "docs" / "lake.md").read_text(), re.M)[0]
    command = line.partition(" > ")[0].replace("BUCKET=bgbatch-lake", f"BUCKET={buckets['lake']}")
    policy = json.loads(merged(command, PLACES | dict.fromkeys(ROLES, OWNER) | {"READER": OTHER}))
    put_policy(buckets["transient"], policy_for_bucket_check(buckets["transient"]))
    say_where(monkeypatch, tmp_path, buckets)
    there = open_store(f"s3://{buckets['lake']}", owners())
    there.write("lake/industry=studio/one", b"x")
    there.write("suppressions/ledger.json", b'{"sequence": 1, "hash": "x"}')

    def can_pull(allowed: dict[str, object]) -> bool:
        put_policy(buckets["lake"], json.dumps(allowed))
        try:
            parts = open_parts(Settings(), system_clock)
            parts.lake.read("industry=studio/one")
            parts.lake.exists("industry=studio/none")
            open_suppressions(parts.settings).read("ledger.json")
        except (BucketUnfit, StoreFault):
            return False
        return True

    assert can_pull(policy)
    own = [each for each in policy["Statement"] if OTHER in each["Principal"]["AWS"] and each["Effect"] == "Allow"]
    rights = {(action, tuple(each["Resource"])) for each in own for action in each["Action"]}
    assert len(rights) == 11
    spare = {right for right in sorted(rights) if can_pull(_without(policy, *right))}
    assert not spare


def _without(policy: dict[str, object], action: str, resource: tuple[str, ...]) -> dict[str, object]:
    """The policy, where nobody may do this to that."""
    statements = [
        each | {"Action": [kept for kept in each["Action"] if kept != action]}
        if each["Effect"] == "Allow" and tuple(each["Resource"]) == resource
        else each
        for each in policy["Statement"]  # type: ignore[attr-defined]
    ]
    return policy | {"Statement": [each for each in statements if each["Action"]]}


def policy_for_bucket_check(bucket: str) -> str:
    who = dict.fromkeys(ROLES, OTHER)
    return Template((POLICIES / "bucket-check.json").read_text()).substitute(who, BUCKET=bucket)


def put_policy(bucket: str, policy: str) -> None:
    s3_of(open_store(f"s3://{bucket}", owners())).call("put_bucket_policy", Policy=policy)


def say_where(monkeypatch: pytest.MonkeyPatch, home: Path, buckets: dict[str, str]) -> None:
    """In the environment, as the other user's deployment would."""
    said = {
        "HOME": str(home),
        "S3_ENDPOINT": ceph.server(),
        "S3_KEY": ceph.OTHER_KEY,
        "S3_SECRET": ceph.OTHER_SECRET,
        "TRANSIENT_URL": f"s3://{buckets['transient']}/batches",
        "LAKE_URL": f"s3://{buckets['lake']}/lake",
        "SUPPRESSIONS_URL": f"s3://{buckets['lake']}/suppressions",
    }
    for name, value in said.items():
        monkeypatch.setenv(f"BGBATCH_{name}", value)


def owners() -> Settings:
    return Settings(s3_endpoint=ceph.server(), s3_key=ceph.KEY, s3_secret=ceph.SECRET)


def others() -> Settings:
    return Settings(s3_endpoint=ceph.server(), s3_key=ceph.OTHER_KEY, s3_secret=ceph.OTHER_SECRET)


def test_each_roles_policies_are_listed_where_its_key_is_made() -> None:
    """Each policy's principals, against the table of secrets."""
    rows = dict(re.findall(r"^\| `([a-z]+)` \|(.+)\|$", (BASE / "secrets.md").read_text(), re.M))
    listed = {name: set(re.findall(r"`(?:deploy/s3-policies/)?([a-z-]+\.json)`", row)) for name, row in rows.items()}
    for secret, role in (("portal", "PORTAL"), ("dispatcher", "FLOWS"), ("worker", "WORKER"), ("cleanup", "CLEANUP")):
        named = {path.name for path in POLICIES.glob("*.json") if f"${{{role}}}" in path.read_text()}
        assert listed[secret] == named, secret
