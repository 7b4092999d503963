"""Places of a customer's own: what may be named, and that reading there changes nothing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import s3fs
from pydantic import SecretStr

from schemas.errors import FetchFailed, FileTooLarge, NotAllowed, NotFound, StoreFault, UserError
from store.objects.no_links import open_folder
from store.outside.allowed import allow, check_place, normal_place, real_place
from store.outside.listing import list_place
from store.outside.opened import open_outside, open_to_deliver
from store.records.database import Records
from store.records.people import create_account
from store.settings import Settings
from tests.store import ceph
from tests.store.conftest import NOON, ceph_bucket, open_store, rclone_bucket


def checked(records: Records, settings: Settings, named: Path, allowed: Path) -> str:
    """An account that may name `allowed` names `named`."""
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", NOON, Random(1).randbytes)
        allow(connection, account_id, f"file://{allowed}", NOON)
        return check_place(connection, account_id, f"file://{named}", settings)


@pytest.mark.parametrize("named", ["", "t/hour", "l", "l-suppressions/grants", "s", "h/prefect", "r/records.db", "r"])
def test_nothing_of_our_own_can_be_named_however_settings_say_where_it_is(
    records: Records, tmp_path: Path, named: str
) -> None:
    settings = Settings(
        home=tmp_path / "x/../h",
        transient_url=f"{tmp_path}/./t",
        lake_url=f"file://{tmp_path}/l/",
        suppressions_url=f"{tmp_path}//s" if named == "s" else "",
        records_url=f"sqlite:///{tmp_path}/r/records.db",
    )
    with pytest.raises(NotAllowed):
        checked(records, settings, tmp_path / named, tmp_path)


@pytest.mark.parametrize("target", ["home/transient", "home", "others"])
def test_a_link_in_a_place_leads_neither_to_us_nor_to_another_place(
    records: Records, tmp_path: Path, target: str
) -> None:
    (tmp_path / "bazaar").mkdir()
    (tmp_path / "bazaar/link").symlink_to(tmp_path / target)
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(NotAllowed):
        checked(records, settings, tmp_path / "bazaar/link/1.jpg", tmp_path / "bazaar")


def test_a_place_may_itself_be_a_link_and_keeps_the_name_that_it_was_given(records: Records, tmp_path: Path) -> None:
    (tmp_path / "disk/bazaar").mkdir(parents=True)
    (tmp_path / "bazaar").symlink_to(tmp_path / "disk/bazaar")
    named = tmp_path / "bazaar/VIN1"
    assert checked(records, Settings(home=tmp_path / "home"), named, tmp_path / "bazaar") == f"file://{named}"


@pytest.mark.parametrize(
    "url",
    [
        "file://srv/photos",
        "file:///srv/./photos",
        "file:///srv/../etc",
        "file:///",
        "file:////srv",
        "s3:///b",
        "s3://b/./x",
    ],
)
def test_what_has_another_name_as_well_is_no_place(url: str) -> None:
    with pytest.raises(UserError):
        normal_place(url)


def test_reading_a_disk_that_is_away_makes_no_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_outside(Settings(home=tmp_path / "home"))(f"file://{tmp_path}/mnt/nas/VIN1/1.jpg")
    assert os.listdir(tmp_path) == []


def test_a_photo_over_the_limit_is_not_even_read(tmp_path: Path) -> None:
    photo = tmp_path / "bazaar/1.jpg"
    photo.parent.mkdir()
    with photo.open("wb") as file:
        file.truncate(31_000_000)
    with pytest.raises(FileTooLarge):
        open_outside(Settings(home=tmp_path / "home"))(f"file://{photo}")


@pytest.mark.parametrize("bucket", [rclone_bucket, ceph_bucket])
def test_a_photo_in_a_bucket_is_read_in_one_request_up_to_the_limit(
    bucket: Callable[[], tuple[str, Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for its size first, it may be another one by then, of any size."""
    url, settings = bucket()
    place, limit = open_store(url, settings), settings.max_bytes
    for name, size in (("empty", 0), ("small", 1), ("full", limit), ("over", limit + 1)):
        place.write(f"VIN1/{name}.jpg", bytes(size))
    asked, ask = [], s3fs.S3FileSystem._call_s3

    async def noted(self: s3fs.S3FileSystem, method: str, *arguments: object, **more: object) -> object:
        asked.append(method)
        return await ask(self, method, *arguments, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    read = open_outside(settings)
    assert [len(read(f"{url}/VIN1/{name}.jpg")) for name in ("empty", "small", "full")] == [0, 1, limit]
    with pytest.raises(FileTooLarge):
        read(f"{url}/VIN1/over.jpg")
    with pytest.raises(NotFound):
        read(f"{url}/VIN1/none.jpg")
    assert asked == ["get_object"] * 5


def test_a_bucket_that_gives_no_photo_is_told_by_the_servers_own_code() -> None:
    """It may be its owner's policy, our own key that has run out, or a server that has too much to do."""
    url, settings = ceph_bucket()
    open_store(url, settings).write("VIN1/1.jpg", b"a photo")
    others = settings.model_copy(update={"s3_key": ceph.OTHER_KEY, "s3_secret": SecretStr(ceph.OTHER_SECRET)})
    with pytest.raises(FetchFailed, match="did not give it: AccessDenied"):
        open_outside(others)(f"{url}/VIN1/1.jpg")
    with pytest.raises(FetchFailed, match="did not give it: NoSuchBucket"):
        open_outside(settings)("s3://none-of-that-name/1.jpg")


@contextmanager
def few_files_open() -> Iterator[None]:
    """No more than twenty beside those that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_photo_many_folders_down_is_listed_read_and_a_cutout_written_with_few_files_open(tmp_path: Path) -> None:
    """Else a few such photos at once would use up what a process may have open, and others' would fail with them."""
    path = "/".join("f" * 500) + "/1.png"
    with few_files_open():
        open_to_deliver(f"file://{tmp_path}", Settings()).write(path, b"cut")
        assert open_outside(Settings())(f"file://{tmp_path}/{path}") == b"cut"
        (found,) = list_place(f"file://{tmp_path}", Settings())
    assert (found.path, found.size) == (path, 3)


def test_folders_so_far_down_that_no_path_leads_there_are_a_fault(tmp_path: Path) -> None:
    """What cannot be listed must not pass for deleted; and one could go on for as long as somebody makes more."""
    with ExitStack() as opened:
        open_folder(opened, "/".join(["f" * 200] * 25), open_folder(opened, str(tmp_path)), made_with=0o700)
    with pytest.raises(StoreFault, match="File name too long"):
        list(list_place(f"file://{tmp_path}", Settings()))


def test_a_folder_that_turns_into_a_pipe_while_it_is_listed_keeps_nobody_waiting(tmp_path: Path) -> None:
    """For whoever writes into the pipe: it and the folder change places again and again."""
    folder, pipe = tmp_path / "bazaar/1", tmp_path / "bazaar/2"
    folder.mkdir(parents=True)
    os.mkfifo(pipe)
    exchange = f"while True: libc.renameat2(-100, {os.fsencode(folder)!r}, -100, {os.fsencode(pipe)!r}, 2)"
    swapping = subprocess.Popen([sys.executable, "-c", f"import ctypes\nlibc = ctypes.CDLL(None)\n{exchange}"])
    look = "from store.outside.listing import list_place\nfrom store.settings import Settings\n"
    look += f"for _ in range(5_000): list(list_place('file://{tmp_path}/bazaar', Settings()))"
    try:
        subprocess.run([sys.executable, "-c", look], check=True, timeout=120)
    finally:
        swapping.kill()
        swapping.wait()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_photo_that_became_a_link_or_a_pipe_since_it_was_named_is_not_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.jpg").write_bytes(b"of another customer")
    photo = tmp_path / "1.jpg"
    if kind == "link":
        photo.symlink_to(tmp_path / "other/1.jpg")
    else:
        os.mkfifo(photo)
    with pytest.raises(NotFound):
        open_outside(Settings(home=tmp_path / "home"))(f"file://{photo}")


def test_a_folder_that_became_a_link_since_it_was_named_leads_nowhere(records: Records, tmp_path: Path) -> None:
    """Else who can make links in their own place reads another's photos, and gives them for training."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.jpg").write_bytes(b"of another customer")
    (tmp_path / "bazaar/VIN1").mkdir(parents=True)
    (tmp_path / "bazaar/VIN1/1.jpg").write_bytes(b"a photo")
    settings = Settings(home=tmp_path / "home")
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", NOON, Random(1).randbytes)
        allow(connection, account_id, f"file://{tmp_path}/bazaar", NOON)
        source = real_place(connection, account_id, f"file://{tmp_path}/bazaar/VIN1/1.jpg", settings)
    assert open_outside(settings)(source) == b"a photo"
    (tmp_path / "bazaar/VIN1").rename(tmp_path / "bazaar/VIN2")
    (tmp_path / "bazaar/VIN1").symlink_to(tmp_path / "other")
    with pytest.raises(NotFound):
        open_outside(settings)(source)


def test_photos_of_a_place_that_is_itself_a_link_are_read(records: Records, tmp_path: Path) -> None:
    (tmp_path / "disk/bazaar").mkdir(parents=True)
    (tmp_path / "bazaar").symlink_to(tmp_path / "disk/bazaar")
    (tmp_path / "bazaar/1.jpg").write_bytes(b"a photo")
    settings = Settings(home=tmp_path / "home")
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", NOON, Random(1).randbytes)
        allow(connection, account_id, f"file://{tmp_path}/bazaar", NOON)
        source = real_place(connection, account_id, f"file://{tmp_path}/bazaar", settings)
    (lying,) = list_place(source, settings)
    assert open_outside(settings)(f"{source}/{lying.path}") == b"a photo"


@pytest.mark.parametrize("link", ["bazaar", "bazaar/cutouts", "bazaar/cutouts/VIN1"])
def test_nothing_is_delivered_through_a_link_that_came_since_the_place_was_checked(
    records: Records, tmp_path: Path, link: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "bazaar/cutouts/VIN1").mkdir(parents=True)
    settings = Settings(home=tmp_path / "home")
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", NOON, Random(1).randbytes)
        allow(connection, account_id, f"file://{tmp_path}/bazaar", NOON)
        place = real_place(connection, account_id, f"file://{tmp_path}/bazaar/cutouts", settings)
    store = open_to_deliver(place, settings)
    store.write("VIN1/1.png", b"a cutout")
    assert (tmp_path / "bazaar/cutouts/VIN1/1.png").read_bytes() == b"a cutout"
    (tmp_path / link).rename(tmp_path / "away")
    (tmp_path / link).symlink_to(tmp_path / "other")
    with pytest.raises(StoreFault, match="links"):
        store.write("VIN1/1.png", b"a cutout")
    assert list((tmp_path / "other").iterdir()) == []


def test_nothing_is_delivered_through_a_folder_that_turns_into_a_link_while_it_is_written_into(tmp_path: Path) -> None:
    """It and a link to another customer's change places again and again, thousands of times a second."""
    cutouts, link, other = (tmp_path / name for name in ("bazaar/cutouts", "bazaar/link", "other"))
    cutouts.mkdir(parents=True)
    other.mkdir()
    link.symlink_to(other)
    exchange = f"while True: libc.renameat2(-100, {os.fsencode(cutouts)!r}, -100, {os.fsencode(link)!r}, 2)"
    swapping = subprocess.Popen([sys.executable, "-c", f"import ctypes\nlibc = ctypes.CDLL(None)\n{exchange}"])
    try:
        store = open_to_deliver(f"file://{tmp_path}/bazaar", Settings(home=tmp_path / "home"))
        for number in range(300):
            with suppress(StoreFault):
                store.write(f"cutouts/{number}.png", b"a cutout")
    finally:
        swapping.kill()
        swapping.wait()
    assert list(other.iterdir()) == []
    assert [each for each in (*cutouts.iterdir(), *link.iterdir()) if each.suffix == ".png"], (
        "some came between two links"
    )


@pytest.mark.parametrize("link", ["bazaar", "bazaar/VIN1", "bazaar/VIN1/back"])
def test_no_names_are_told_of_a_folder_that_became_a_link_since_the_place_was_checked(
    tmp_path: Path, link: str
) -> None:
    for name in ("bazaar/VIN1/back", "other/VIN1/back"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"{name[0]}.jpg").write_bytes(b"a photo")
    (tmp_path / link).rename(tmp_path / "away")
    (tmp_path / link).symlink_to(tmp_path / link.replace("bazaar", "other"))
    names = []
    with suppress(StoreFault):
        names += [each.path for each in list_place(f"file://{tmp_path}/bazaar/VIN1", Settings(home=tmp_path / "home"))]
    assert names == []


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_is_hidden_in_a_place_is_left_out(tmp_path: Path, kind: str) -> None:
    url, settings = (f"file://{tmp_path}/stock", Settings(home=tmp_path)) if kind == "folder" else rclone_bucket()
    place = open_store(url, settings)
    for path in ("VIN1/1.jpg", ".trash/2.jpg", "VIN1/.3.jpg", "VIN1/.old/deep/4.jpg", "5..jpg"):
        place.write(path, b"a photo")
    assert sorted(each.path for each in list_place(url, settings)) == ["5..jpg", "VIN1/1.jpg"]


def test_a_place_for_which_there_are_no_keys_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    settings = Settings(home=tmp_path, s3_endpoint="http://127.0.0.1:1")
    with pytest.raises(StoreFault, match=r"could not be listed: NoCredentialsError.*BGBATCH_S3_KEY"):
        list(list_place("s3://catalog/photos", settings))
