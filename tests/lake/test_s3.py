"""The lake on S3 as in a folder: on a quick server, and on one that keeps versions and enforces policies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from string import Template

import duckdb
import pytest
from torch.utils.data import DataLoader

from lake import parquet
from lake.audit import audit
from lake.copies.manifest import Kind
from lake.erase import READING, erase_grant
from lake.pull import Order
from lake.reading import Lake
from lake.training import CandidateDataset, Reading, Sample
from lake.verify import verify
from schemas.errors import NotFound
from store.objects.object_store import ObjectStore, open_store
from store.records.database import open_records
from store.settings import Settings
from tests.lake.conftest import AUTO, World, build_world
from tests.lake.test_compact import ids, merge
from tests.records import at_home
from tests.store import ceph
from tests.store.conftest import ceph_bucket, rclone_bucket, s3_of

POLICIES = Path(__file__).parents[2] / "deploy" / "s3-policies"


def on_s3(home: Path, server: str) -> tuple[World, Settings]:
    url, settings = rclone_bucket() if server == "rclone" else ceph_bucket()
    lake_url = url.replace("transient", "lake")
    world = build_world(
        home, lake_url, s3_endpoint=settings.s3_endpoint, s3_key=settings.s3_key, s3_secret=settings.s3_secret
    )
    if server == "versions":
        s3_of(world.lake).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    return world, settings


@pytest.fixture(params=["rclone", "versions"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[World, Settings]:
    return on_s3(tmp_path, request.param)


def test_a_grants_whole_life_on_s3(far: tuple[World, Settings]) -> None:
    world, _ = far
    mine, other = world.grant(), world.grant()
    file = world.give(mine)
    world.lake.write(file.key, world.lake.read(file.key))  # where versions are kept, the first stays beneath
    world.give(mine)
    kept = world.give(other)
    everything = ids(world)
    assert len(everything) == 6
    assert world.reader().dataset(AUTO).to_table().num_rows == 6
    assert audit(world.reader()).faults == []
    assert merge(world, least_files=2).merged == 1
    assert ids(world) == everything
    world.now += READING
    assert world.sweep().retired == 2
    assert len(list(world.reader().torch_dataset(AUTO))) == 6
    receipt = erase_grant(world.lake, world.records, world.withdraw(mine), world.clock)
    assert receipt is not None
    assert receipt.remaining == 0
    assert {each.key for each in world.lake.walk("")} == {kept.key}, "versions and markers included"
    assert len(ids(world)) == 2


def test_a_copy_on_s3_can_be_taken_back(far: tuple[World, Settings]) -> None:
    world, settings = far
    ended = world.grant()
    world.give(ended)
    world.give(world.grant())
    copy = open_store(f"s3://{s3_of(world.lake).bucket}/copies/one", settings)
    order = Order(Kind.WEBDATASET)
    assert world.pull(copy, order=order).rows == 4
    assert verify(copy, world.records, world.live(), world.clock).is_good
    world.withdraw(ended)
    found = verify(copy, world.records, world.live(), world.clock, erase=True)
    assert (found.must_go_rows, found.is_good) == (2, True)
    assert not [each.key for each in copy.walk("") if ended.grant_id in each.key]


def test_duckdb_reads_the_lake_in_place(tmp_path: Path) -> None:
    world, _ = on_s3(tmp_path, "rclone")
    world.give(world.grant(), 3)
    filesystem = s3_of(world.lake).filesystem
    connection = duckdb.connect()
    connection.register_filesystem(filesystem)
    paths = world.reader().paths(AUTO)
    assert connection.sql(f"SELECT count(*), min(width) FROM read_parquet({paths})").fetchall() == [(3, 48)]


def test_forked_loaders_read_a_lake_on_s3(tmp_path: Path) -> None:
    """Their parent has an open connection, which does not survive the fork."""
    world, settings = on_s3(tmp_path, "rclone")
    world.give(world.grant(), 3)

    def reopen() -> Lake:
        lake = open_store(s3_of(world.lake).root, settings)
        return Lake(lake, open_records(at_home(tmp_path)), world.live)

    dataset = CandidateDataset(reopen, Reading(AUTO), candidate_id)
    here = sorted(dataset)
    assert len(here) == 3
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(loader) == here


@pytest.mark.parametrize("server", ["rclone", "ceph"])
def test_what_is_taken_back_while_it_is_read_ends_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1)
    world, _ = on_s3(tmp_path, server)
    first, second = sorted((world.grant(), world.grant()), key=lambda each: each.grant_id)
    world.give(first, 33)
    world.give(second, 1)
    lake = world.reader()
    (opened,) = [lake.open(file.key) for file in lake.snapshot(AUTO).files if file.grant_id == first.grant_id]
    readers = [iter(lake.images(AUTO)), iter(lake.torch_dataset(AUTO, shuffle=0, decoders=0))]
    assert [next(reader).candidate_id for reader in readers]
    erase_grant(world.lake, world.records, world.withdraw(first), world.clock)
    for reader in readers:
        left = list(reader)
        assert len(left) == 32, "31 of the row group that was begun, and the other customer's"
    with pytest.raises(NotFound):
        opened.read()


def candidate_id(sample: Sample) -> str:
    return sample.candidate_id


def as_other(world: World, policy: str) -> ObjectStore:
    """The lake as another user of the same server sees it, who has only this policy."""
    s3 = s3_of(world.lake)
    who = dict.fromkeys(("WORKER", "READER", "FLOWS", "CLEANUP"), "arn:aws:iam:::user/other")
    text = Template((POLICIES / policy).read_text()).substitute(BUCKET=s3.bucket, LAKE="lake", **who)
    s3.call("put_bucket_policy", Policy=text)
    settings = Settings(s3_endpoint=ceph.server(), s3_key=ceph.OTHER_KEY, s3_secret=ceph.OTHER_SECRET)
    return ObjectStore(open_store(s3.root, settings).storage, pause=lambda seconds: None)


def test_cleanup_with_its_own_rights_erases_a_grant(tmp_path: Path) -> None:
    world, _ = on_s3(tmp_path, "versions")
    grant = world.grant()
    world.give(grant)
    other = as_other(world, "lake-cleanup.json")
    assert erase_grant(other, world.records, world.withdraw(grant), world.clock) is not None
    assert list(world.lake.walk("")) == []


def test_the_pull_with_its_own_rights_copies(tmp_path: Path) -> None:
    world, _ = on_s3(tmp_path, "ceph")
    world.give(world.grant())
    other = as_other(world, "lake-reader.json")
    pulled = replace(world, lake=other).pull(tmp_path / "copy")
    assert pulled.rows == 2
    assert len(Lake(other, world.records, world.live).labels(AUTO)) == 2


def test_a_slash_too_many_in_the_lake_erases_nobodys_candidates_and_stops_no_withdrawal(tmp_path: Path) -> None:
    """A console marks a folder with an empty object at `folder/`; a slash too many makes a folder without a name."""
    world, _ = on_s3(tmp_path, "versions")
    kept, ended = world.grant(), world.grant()
    file = world.give(kept)
    world.give(ended)
    world.withdraw(ended)
    for key in ("", "/stray", f"/{file.key}", f"industry={AUTO}/", f"industry={AUTO}//stray"):
        s3_of(world.lake).call("put_object", Key=f"lake/{key}", Body=b"x")
    assert world.sweep().strays == 5
    assert {each.key for each in world.lake.walk("")} == {file.key}
