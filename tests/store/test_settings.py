"""Settings that cannot work, or that would mean another place in another working folder, are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import Settings


def refused(name: str, value: str) -> str:
    """What is said of it. It must be about this setting, and must not repeat its value, which may hold a password."""
    with pytest.raises(ValidationError) as found:
        Settings(**{name: value})  # type: ignore[arg-type]
    (error,) = found.value.errors()
    assert error["loc"] == (name,)
    said = str(error["msg"])
    assert value not in said
    return said


@pytest.mark.parametrize("name", ["home", "transient_url", "lake_url", "suppressions_url"])
@pytest.mark.parametrize(
    "value", ["data", "./data", "~/data", "file://data", "s4://bucket/x", "S3://bucket", "s3:///x"]
)
def test_a_place_that_a_cleanup_in_another_folder_would_not_find_is_refused(name: str, value: str) -> None:
    assert "by its whole path" in refused(name, value)


def test_whole_places_are_taken(tmp_path: Path) -> None:
    for place in (str(tmp_path), f"file://{tmp_path}", "s3://bucket", "s3://bucket/prefix/"):
        assert Settings(home="/srv/home", transient_url=place).transient_root == place


@pytest.mark.parametrize(
    "url",
    [
        "records.db",
        "sqlite:///records.db",
        "postgresql://me:secret@host/bgbatch",
        "postgres://host/b",
        "mysql://host/b",
        "postgresql+psycopg://me:secret@one:5432,two:5432/b",
        "postgresql+psycopg://host:port/b",
    ],
)
def test_a_database_that_cannot_be_opened_or_is_another_one_elsewhere_is_refused(url: str) -> None:
    assert "postgresql+psycopg://user:password@host:port/database" in refused("records_url", url)


def test_databases_are_taken() -> None:
    of_two = "postgresql+psycopg://me:secret@/bgbatch?host=one:5432&host=two:5432"
    for url in (
        "",
        "sqlite://",
        "sqlite:////srv/records.db",
        "postgresql+psycopg://me:secret@host/bgbatch?x=1",
        of_two,
    ):
        assert Settings(records_url=url).records_url == url


@pytest.mark.parametrize("name", ["s3_endpoint", "traces_url", "portal_url"])
@pytest.mark.parametrize("url", ["nonsense", "photos.example.com", "localhost:9000", "ftp://host"])
def test_an_address_without_its_scheme_is_refused(name: str, url: str) -> None:
    assert "http:// or https://" in refused(name, url)


def test_a_portal_cannot_lie_in_a_folder_of_its_host() -> None:
    assert "a host of its own" in refused("portal_url", "https://example.com/cut")
    assert Settings(portal_url="https://example.com/").portal_url == "https://example.com"
    assert Settings(s3_endpoint="https://example.com/storage/s3").s3_endpoint


@pytest.mark.parametrize("address", ["auto", "local", "node", "ray://head:10001", "http://head:8265", "node:", ":1234"])
def test_a_cluster_that_is_named_by_anything_but_its_head_is_refused(address: str) -> None:
    assert "host:port" in refused("ray_address", address)


def test_heads_are_taken() -> None:
    for address in ("", "127.0.0.1:6379", "bgbatch-head-svc:6379", "[fd00::1]:6379"):
        assert Settings(ray_address=address).ray_address == address


@pytest.mark.parametrize("name", ["max_megapixels", "max_megabytes", "recycle_gigabytes"])
def test_a_limit_without_end_is_refused(name: str) -> None:
    assert "finite" in refused(name, "inf")


def test_a_limit_is_the_number_that_is_said_and_not_one_less() -> None:
    given = Settings(max_megapixels=4.1, max_megabytes=2.01)
    assert (given.max_pixels, given.max_bytes) == (4_100_000, 2_010_000)
