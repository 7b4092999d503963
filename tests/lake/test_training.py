"""A training loop sees each live row once per epoch, whichever rank and worker it comes through."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lake import training
from lake.compact import compact
from lake.erase import reconcile
from lake.parquet import to_parquet
from lake.reading import Lake
from lake.training import CandidateDataset, Reading, Sample
from schemas.candidate import CANDIDATE
from tests.lake.conftest import AUTO, World, a_photo, build_world


def reopen(home: Path, live: list[str]) -> Lake:
    """As another process does."""
    world = build_world(home)
    return Lake(world.lake, world.records, lambda: live)  # type: ignore[arg-type, return-value]


def only_id(sample: Sample) -> str:
    return sample.candidate_id


def every_id(world: World) -> list[str]:
    return sorted(world.reader().labels(AUTO)["candidate_id"].to_pylist())


@pytest.fixture
def filled(world: World) -> World:
    for _ in range(4):
        grant = world.grant()
        facts = world.batch(grant, [a_photo(world.random.randrange(10**6)) for _ in range(5)])
        for some in (facts[:3], facts[3:]):
            world.admit(world.write(some))
    return world


def test_an_epoch_holds_each_row_once_in_another_order(filled: World) -> None:
    dataset = filled.reader().torch_dataset(AUTO, only_id)
    first, second = list(dataset), list(dataset)
    assert sorted(first) == sorted(second) == every_id(filled)
    assert first != second
    again = filled.reader().torch_dataset(AUTO, only_id)
    assert list(again) == first, "the same seed and epoch give the same order"


def test_samples_are_decoded(filled: World) -> None:
    (sample, *_) = filled.reader().torch_dataset(AUTO, shuffle=0)
    assert isinstance(sample, Sample)
    assert (sample.image.shape, sample.image.dtype) == ((32, 48, 3), np.uint8)
    assert sample.mask is not None
    assert sample.mask.shape == (32, 48)
    assert sample.grant_id in filled.live()


def test_masks_can_be_left_out_and_large_photos_decoded_small(world: World) -> None:
    world.admit(world.write(world.batch(world.grant(), [a_photo(1, (640, 480))])))
    (sample,) = world.reader().torch_dataset(AUTO, masks=False, at_least=(100, 100))
    assert sample.mask is None
    assert sample.image.shape == (120, 160, 3)


def test_what_is_transparent_lies_on_white_as_the_network_saw_it(world: World) -> None:
    photo = Image.new("RGBA", (4, 2), (200, 0, 0, 0))
    photo.paste((0, 0, 100, 255), (2, 0, 4, 2))
    photo.putpixel((1, 0), (200, 0, 0, 51))
    sink = io.BytesIO()
    photo.save(sink, "PNG")
    world.admit(world.write(world.batch(world.grant(), [sink.getvalue()])))
    (sample,) = world.reader().torch_dataset()
    assert sample.image[0].tolist() == [[255, 255, 255], [244, 204, 204], [0, 0, 100], [0, 0, 100]]


def test_ranks_share_an_epoch(filled: World) -> None:
    seen = Counter(
        each for rank in range(3) for each in filled.reader().torch_dataset(AUTO, only_id, rank=rank, ranks=3)
    )
    assert sorted(seen) == every_id(filled)
    assert set(seen.values()) == {1}


def test_every_rank_is_given_some_of_files_whose_rows_are_in_one_group(world: World) -> None:
    """Files of 40 small photos: a rank without a single one would keep the others waiting for ever."""
    for _ in range(2):
        world.admit(world.write(world.batch(world.grant(), [a_photo(1)] * 40)))
    seen = [list(world.reader().torch_dataset(AUTO, only_id, shuffle=0, rank=rank, ranks=2)) for rank in range(2)]
    assert [len(each) for each in seen] == [40, 40]
    assert sorted(seen[0] + seen[1]) == every_id(world)


def test_every_rank_is_given_some_where_there_are_more_workers_than_files(world: World, tmp_path: Path) -> None:
    for _ in range(2):
        world.give(world.grant())
    datasets = [
        CandidateDataset(partial(reopen, tmp_path, world.live()), Reading(AUTO, rank=rank, ranks=2), only_id)
        for rank in range(2)
    ]
    seen = [list(DataLoader(each, batch_size=None, num_workers=2)) for each in datasets]
    assert [len(each) for each in seen] == [2, 2]


def test_ranks_are_given_as_many_rows_each_though_files_differ_in_size(world: World) -> None:
    grant = world.grant()
    for rows in (6, 1, 6, 1):
        world.give(grant, rows)
        world.pass_time(seconds=1)  # in this order
    seen = [list(world.reader().torch_dataset(AUTO, only_id, shuffle=0, rank=rank, ranks=2)) for rank in range(2)]
    assert [len(each) for each in seen] == [7, 7]


@pytest.mark.parametrize(("rows", "size"), [(40, 300_000), (80, 170_000)])
def test_ranks_share_the_row_groups_of_one_file(world: World, rows: int, size: int) -> None:
    photo = a_photo(1)
    file = world.write(world.batch(world.grant(), [photo] * rows))
    table = world.reader().open(file.key).read()
    images = [photo.ljust(size, b"\0")] * rows  # behind its end, so that it decodes
    table = table.set_column(table.column_names.index("image"), "image", [images]).cast(CANDIDATE)
    data = to_parquet(table)
    world.lake.write(file.key, data)
    world.admit(replace(file, bytes=len(data)))
    groups = world.reader().open(file.key).num_row_groups
    assert groups > 1
    seen = [
        list(world.reader().torch_dataset(AUTO, only_id, shuffle=0, rank=rank, ranks=groups)) for rank in range(groups)
    ]
    assert all(seen)
    assert sorted(each for some in seen for each in some) == every_id(world)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_share_an_epoch(filled: World, tmp_path: Path, start: str) -> None:
    dataset = CandidateDataset(partial(reopen, tmp_path, filled.live()), Reading(AUTO), only_id)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=start)
    assert sorted(loader) == every_id(filled)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_made_anew_shuffle_anew(filled: World, tmp_path: Path, workers: int) -> None:
    dataset = CandidateDataset(partial(reopen, tmp_path, filled.live()), Reading(AUTO), only_id)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    torch.manual_seed(1)
    first, second = list(loader), list(loader)
    assert sorted(first) == sorted(second) == every_id(filled)
    assert first != second
    torch.manual_seed(1)
    assert list(loader) == first, "the order comes from torch's seed"


def test_samples_come_out_of_a_worker_as_they_are(filled: World, tmp_path: Path) -> None:
    dataset = CandidateDataset(partial(reopen, tmp_path, filled.live()), Reading(AUTO))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    here = {sample.candidate_id: sample for sample in filled.reader().torch_dataset(AUTO)}
    for sample in loader:
        assert torch.equal(torch.from_numpy(sample.image), torch.from_numpy(here[sample.candidate_id].image))
        assert np.array_equal(sample.mask, here.pop(sample.candidate_id).mask)
    assert not here


def test_a_condition_is_kept(filled: World) -> None:
    found = list(filled.reader().torch_dataset(AUTO, only_id, where="item in (2, 4)"))
    assert sorted({each[-1] for each in found}) == ["2", "4"]


def test_what_was_withdrawn_is_left_out_from_the_next_epoch_on(filled: World) -> None:
    dataset = filled.reader().torch_dataset(AUTO, only_id)
    assert len(list(dataset)) == 20
    filled.withdraw(filled.grants[filled.live()[0]])
    assert len(list(dataset)) == 15


@pytest.mark.parametrize("is_erased", [False, True])
def test_what_is_withdrawn_in_an_epoch_is_left_out_though_it_was_read_already_or_its_file_is_open(
    filled: World, monkeypatch: pytest.MonkeyPatch, is_erased: bool
) -> None:
    """A file of a folder is mapped into memory, where it stays when it is erased."""
    monkeypatch.setattr(training, "_ASK_EVERY", 0.0)
    epoch = iter(filled.reader().torch_dataset(AUTO))
    withdrawn = next(epoch).grant_id
    ended = filled.withdraw(filled.grants[withdrawn])
    if is_erased:
        reconcile(filled.lake, filled.records, filled.live(), [ended], lambda: filled.now)
    rest = Counter(sample.grant_id for sample in epoch)
    assert sorted(rest.values()) == [5, 5, 5]
    assert withdrawn not in rest


def test_a_file_that_vanishes_in_an_epoch_is_left_out_at_once(filled: World) -> None:
    epoch = iter(filled.reader().torch_dataset(AUTO, only_id, shuffle=0, decoders=0))
    next(epoch)
    filled.lake.delete_folder("")
    assert len(list(epoch)) <= 2, "only what was read already"


def test_an_image_that_does_not_decode_is_left_out(world: World) -> None:
    photo = a_photo(1)
    broken = photo[:400] + b"\xff\xd9"
    world.admit(world.write([*world.batch(world.grant(), [photo])]))
    facts = world.batch(world.grant(), [photo])
    from store.transient.transient_store import source_key

    world.transient.objects.write(source_key(facts[0].batch_id, 1), broken)
    world.admit(world.write(facts))
    assert len(list(world.reader().torch_dataset(AUTO))) == 1


def test_decoding_ahead_changes_neither_samples_nor_their_order(filled: World) -> None:
    plain, ahead = (list(filled.reader().torch_dataset(AUTO, decoders=count)) for count in (0, 3))
    assert [each.candidate_id for each in plain] == [each.candidate_id for each in ahead]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(plain, ahead, strict=True))


def test_ranks_share_one_list_however_the_lake_changes_between_their_starts(filled: World) -> None:
    """Merging, admitting, withdrawing and erasing between two ranks' first looks: none twice, none missing."""
    before = every_id(filled)
    began = filled.now
    filled.pass_time(minutes=5)
    gone = filled.grants[filled.live()[0]]
    seen: list[str] = []
    for rank in range(3):
        dataset = CandidateDataset(filled.reader, Reading(AUTO, rank=rank, ranks=3), only_id, filled.clock)
        dataset.set_epoch(1, began)
        seen += dataset
        if rank == 0:
            first = list(seen)
            filled.give(filled.grants[filled.live()[-1]])
            compact(filled.reader(), lambda connection, grant_id: True, filled.clock, os.urandom, least_files=2)
            filled.withdraw(gone)
            reconcile(filled.lake, filled.records, filled.live(), filled.ended(), filled.clock)
    taken_back = {each for each in before if each not in set(every_id(filled))}
    assert len(set(seen)) == len(seen)
    assert set(seen) == set(before) - (taken_back - set(first))


def test_a_pass_as_of_now_follows_one_as_of_then(filled: World) -> None:
    dataset = CandidateDataset(filled.reader, Reading(AUTO), only_id, filled.clock)
    dataset.set_epoch(0)
    assert list(dataset) == [], "ten minutes ago there was nothing"
    assert sorted(dataset) == every_id(filled)
    dataset.set_epoch(0, filled.now)
    assert sorted(dataset) == every_id(filled)


def test_workers_that_live_on_see_each_new_epoch(filled: World, tmp_path: Path) -> None:
    dataset = CandidateDataset(partial(reopen, tmp_path, filled.live()), Reading(AUTO), only_id)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    passes = []
    for epoch in range(2):
        dataset.set_epoch(epoch, filled.now)
        passes.append(list(loader))
    assert sorted(passes[0]) == sorted(passes[1]) == every_id(filled)
    assert passes[0] != passes[1]
    dataset.set_epoch(2, filled.now - timedelta(minutes=1))
    assert list(loader) == [], "the moment of this pass is before the first candidate"


RANK = """
import sys
from datetime import UTC, datetime, timedelta
import torch.distributed as dist
from lake.training import CandidateDataset, Reading
where, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{where}", rank=rank, world_size=2)
clock = lambda: datetime(2026, 11, 25, 12, rank, tzinfo=UTC)
dataset = CandidateDataset(None, Reading(), None, clock)
dataset.set_epoch(5)
print(*dataset._begin())
dist.destroy_process_group()
"""


def test_every_rank_reads_the_lake_of_rank_0s_moment(tmp_path: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path / "meet"), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=600)[0] for rank in ranks]
    assert said == ["5 2026-11-25 11:50:00+00:00\n"] * 2


SHARE = """
import sys
from functools import partial
from pathlib import Path
import torch.distributed as dist
from torch.utils.data import DataLoader
from lake.training import CandidateDataset, Reading
from tests.lake.test_training import AUTO, only_id, reopen
home, rank, *live = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{home}/meet", rank=int(rank), world_size=2)
dataset = CandidateDataset(partial(reopen, Path(home), live), Reading(AUTO), only_id)
print(*DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
dist.destroy_process_group()
"""


def test_workers_of_ranks_share_an_epoch(filled: World, tmp_path: Path) -> None:
    """`torch.multiprocessing.spawn` makes ranks whose workers are no forks: torch.distributed does not run in those."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(tmp_path), str(rank), *filled.live()],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    assert sorted(" ".join(rank.communicate(timeout=600)[0] for rank in ranks).split()) == every_id(filled)
