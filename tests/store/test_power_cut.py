"""A disk whose power is cut: ext4 in a file, shut down by the call that file systems have for such tests."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from portal.delivery import Results, deliver
from schemas.batch import BatchState, Item, Manifest
from schemas.results import Standing
from store.objects.folder import Folder
from store.records.batches import get_batch, open_batch, seal
from store.records.database import open_records
from store.records.people import create_account
from store.settings import Settings
from store.transient.transient_store import open_transient
from tests.store.conftest import NOON, stamp

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN in the kernel's fs/ext4/ext4.h
_AND_LOSE_THE_LOG = 2


class Disk:
    """Mounted at `path`."""

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        self._mount()

    def cut_the_power(self) -> None:
        """Whatever has not reached the disk is lost; then it is there again."""
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _AND_LOSE_THE_LOG))
        os.close(descriptor)
        subprocess.run(["umount", self.path], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path / "image", tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs mkfs.ext4, root, and a loop device")
    yield disk
    subprocess.run(["umount", "--lazy", disk.path], check=True)


def test_an_object_that_was_written_is_whole_after_a_power_cut(disk: Disk) -> None:
    folder = Folder(str(disk.path / "transient"))
    written = {f"hour/batch{n % 3}/cutout/{n}": Random(n).randbytes(5_000) for n in range(12)}
    for key, data in written.items():
        folder.put(key, b"an older one")
        folder.put(key, data)
    disk.cut_the_power()
    assert {found.key: folder.get(found.key) for found in folder.find("")} == written


def test_what_the_records_say_is_sealed_can_be_read_after_a_power_cut(disk: Disk) -> None:
    settings = Settings(home=disk.path / "home")
    manifest = Manifest(stamp=stamp(), items=(Item(number=1, path="VIN1/front.jpg", size=1),))
    records = open_records(settings)
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "ann@acme.example", NOON, Random(1).randbytes)
        open_batch(connection, manifest.stamp, account_id)
    open_transient(settings, lambda: NOON).seal(manifest)
    with records.transaction() as connection:
        seal(connection, manifest.stamp.batch_id, 1)
    records.engine.dispose()
    disk.cut_the_power()
    with open_records(settings).reading() as connection:
        assert get_batch(connection, manifest.stamp.batch_id).state is BatchState.SEALED
    found = open_transient(settings, lambda: NOON).manifest(manifest.stamp.batch_id)
    assert (found.stamp, tuple(found.items)) == (manifest.stamp, manifest.items)


def test_a_cutout_that_was_fetched_is_there_after_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    """Its batch may be purged at once (`download --purge`), so it may be the last one."""
    transient = open_transient(Settings(home=tmp_path / "home"), lambda: NOON)
    items = tuple(Item(number=number, path=f"VIN{number}/front.jpg", size=1) for number in (1, 2, 3))
    names = {item.number: item.path.replace("jpg", "png") for item in items}
    results = Results(Manifest(stamp=stamp(), items=items), Standing({item.number for item in items}), names)
    cutouts = {number: Random(number).randbytes(5_000) for number in names}
    for number, data in cutouts.items():
        transient.write(results.stamp, results.key(number), data)
    deliver(transient, results, disk.path / "to", lambda: None)
    disk.cut_the_power()
    assert {number: (disk.path / "to" / name).read_bytes() for number, name in names.items()} == cutouts
