"""The one settings object. With none of them set the program works: a folder, SQLite, Ray and torch on this machine."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
"""Hosts of addresses that nobody else can call."""

_S3 = re.compile(r"s3://[^/\s]+")
_WEB = re.compile(r"https?://[^/?#\s]+")
_HEAD = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}")
_RECORDS = re.compile(r"postgresql\+psycopg://|sqlite://(/?$|//)")

OUR_PASSWORDS = frozenset(("BGBATCH_RECORDS_URL", "BGBATCH_SMTP_URL", "BGBATCH_OIDC_CLIENT_SECRET"))
NOT_FOR_WORKERS = OUR_PASSWORDS | {
    "PGPASSWORD",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_PASSWORD",
    "PREFECT_SERVER_DATABASE_PASSWORD",
}
"""Variables of the environment without which a worker works: it needs the object store's key alone."""


class Settings(BaseSettings):
    """Read from the environment, `BGBATCH_HOME` and so on; `bgbatch settings` shows what is in force."""

    model_config = SettingsConfigDict(
        env_prefix="BGBATCH_", env_ignore_empty=True, frozen=True, extra="ignore", allow_inf_nan=False
    )

    home: Path = Field(
        default_factory=lambda: user_data_path("bgbatch"), description="Folder for all embedded defaults."
    )
    transient_url: str = Field(
        "", description="Transient store: a folder or s3://bucket/prefix. Empty: HOME/transient."
    )
    lake_url: str = Field("", description="Lake: a folder or s3://bucket/prefix. Empty: HOME/lake.")
    suppressions_url: str = Field(
        "", description="Withdrawals that no restore may undo. Empty: beside the lake, its name with -suppressions."
    )
    records_url: str = Field("", description="Records: an SQLAlchemy URL. Empty: SQLite at HOME/records.db.")
    s3_endpoint: str = Field("", description="Address of an S3 server other than AWS.")
    s3_key: str = Field("", description="Access key; empty: what the environment offers.")
    s3_secret: SecretStr = Field(SecretStr(""), description="Secret key that goes with it.")

    purge_after_hours: float = Field(23.0, gt=0, le=23.5, description="Hours from receipt to purge; the promise is 24.")

    cleanup_expected: bool = Field(
        False,
        description="Somebody runs `bgbatch cleanup` every 10 minutes: stop taking batches in when it falls silent.",
    )
    allow_versioned: bool = Field(
        False, description="Take a bucket that keeps versions; the purge then removes every version, and looks again."
    )
    soft_delete_off: bool = Field(
        False, description="You have turned off Google Cloud's soft delete, which the S3 interface does not show."
    )

    ray_address: str = Field(
        "",
        description="A Ray cluster: its head's host:port. Empty: Ray starts on this machine and ends with the program.",
    )
    device: str = Field("cpu", description="cpu, cuda or cuda:N. If it is not there, the start fails.")
    network: Literal["u2netp", "u2net", "isnet", "own"] = Field(
        "u2netp", description="Which network segments: u2netp, u2net, isnet or own."
    )
    weights: Path | None = Field(None, description="Its weights, safetensors. Empty: the file that ships with bgbatch.")
    exact: bool = Field(
        False, description="Run the network in 32 bits throughout, where 8 in its heaviest parts would be faster."
    )
    compiled: bool = Field(True, description="On a GPU, compile the network at the start; it is then twice as fast.")
    compiled_in: Path | None = Field(
        None, description="Folder where what was compiled is kept for the next start. Empty: HOME/compiled."
    )
    actors: int = Field(0, ge=0, description="Segmenter actors. 0: one for each CPU or GPU.")
    gpu_share: float = Field(0.5, gt=0, le=1, description="How much of a GPU each actor takes: 0.5 puts two on one.")
    actor_idle_minutes: float = Field(
        10.0,
        ge=0,
        description="On a cluster, an actor idle for so long leaves, and its machine can go. 0: never.",
    )
    recycle_items: int = Field(50_000, ge=0, description="An actor is replaced after so many photos. 0: never.")
    recycle_gigabytes: float = Field(8.0, ge=0, description="Or when it holds so much memory. 0: never.")
    shard_items: int = Field(
        0, ge=0, le=256, description="Items per call to an actor. 0: 8 on a CPU; 64 on a GPU, which runs 32 at once."
    )

    max_megapixels: float = Field(50.0, gt=0, description="Larger photos are refused.")
    max_megabytes: float = Field(30.0, gt=0, description="Larger files are refused.")

    account_batches: int = Field(200, ge=1, description="Batches that an account may have open, waiting or running.")
    account_items: int = Field(500_000, ge=1, description="Photos that an account may have waiting, or coming in.")
    line_items: int = Field(5_000_000, ge=1, description="Photos that may wait or come in altogether; beyond it: 429.")
    uploads_at_once: int = Field(
        32, ge=1, description="Photos in memory at once on their way in, a quarter of one account; beyond it: 429."
    )

    log: Literal["text", "json"] = Field(
        "text", description="The log on stderr: text holds warnings; json also what was done and each request."
    )

    traces_url: str = Field(
        "", description="OpenTelemetry collector, OTLP over HTTP: http://host:4318. Empty: no traces."
    )

    portal_url: str = Field("http://127.0.0.1:8080", description="Where people reach the portal.")
    smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Mail server for sign-in links: smtp://user:password@host:587 (with STARTTLS), smtps://…:465, "
        "or smtp+plain:// for a relay without encryption. Empty: a portal on this machine prints the links.",
    )
    mail_from: str = Field("bgbatch <bgbatch@localhost>", description="Sender of the letters.")
    oidc_issuer: str = Field("", description="OpenID Connect provider for sign-in: its issuer address. Empty: none.")
    oidc_client_id: str = Field("", description="Our client id at the provider.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="The secret that goes with it.")
    oidc_name: str = Field("single sign-on", description="What people call the provider: `Sign in with …`.")

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, name: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
            raise ValueError("Choose cpu, cuda or cuda:N")
        return name

    @field_validator("home", "transient_url", "lake_url", "suppressions_url")
    @classmethod
    def _is_the_same_from_everywhere(cls, place: Path | str) -> Path | str:
        """A cleanup that starts in another folder would look for a relative one there, and find nothing to purge."""
        named = str(place)
        if named and not _S3.match(named) and not named.removeprefix("file://").startswith("/"):
            raise ValueError("Give a folder by its whole path, from / on, or a place as s3://bucket/prefix")
        return place

    @field_validator("records_url")
    @classmethod
    def _is_a_database(cls, url: str) -> str:
        if url and not (_RECORDS.match(url) and _can_be_read(url)):
            raise ValueError(
                "Give postgresql+psycopg://user:password@host:port/database, of several hosts "
                "…@/database?host=one:port&host=two:port, or sqlite:////whole/path/of/a/file"
            )
        return url

    @field_validator("ray_address")
    @classmethod
    def _is_a_head(cls, address: str) -> str:
        if address and not _HEAD.fullmatch(address):
            raise ValueError("Give host:port of the cluster's head, such as 10.0.0.5:6379")
        return address

    @field_validator("s3_endpoint", "traces_url", "portal_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and not _WEB.match(url):
            raise ValueError("Give an address that begins with http:// or https://")
        return url

    @field_validator("portal_url")
    @classmethod
    def _is_a_whole_host(cls, url: str) -> str:
        host = url.removesuffix("/")
        if not _WEB.fullmatch(host):
            raise ValueError("The portal needs a host of its own: give https://host, with nothing behind it")
        return host

    @model_validator(mode="after")
    def _stores_lie_apart(self) -> Self:
        """What lies in the transient store or the lake outside its layout is deleted as a stray: nothing else may."""
        sweeping = {"transient store": (self.transient_root, "batches"), "lake": (self.lake_root, "candidates")}
        for sweeper, (root, kept) in sweeping.items():
            for name, place in self.own_places.items():
                if name != sweeper and f"{_root(place)}/".startswith(f"{_root(root)}/"):
                    raise ValueError(f"The {name} must not lie inside the {sweeper}, which deletes all but {kept}")
        return self

    def without_secrets(self) -> dict[str, object]:
        """What may pass through Ray, which can keep what it is given. Each process adds secrets of its environment."""
        return self.model_dump(mode="json", exclude={"s3_secret", "records_url", "smtp_url", "oidc_client_secret"})

    @property
    def transient_root(self) -> str:
        """`transient_url`, or its default."""
        return self.transient_url or str(self.home / "transient")

    @property
    def lake_root(self) -> str:
        """`lake_url`, or its default."""
        return self.lake_url or str(self.home / "lake")

    @property
    def compiled_folder(self) -> Path:
        """`compiled_in`, or its default."""
        return self.compiled_in or self.home / "compiled"

    @property
    def items_per_call(self) -> int:
        """`shard_items`, or its default: a GPU takes as long for a few photos as for 32."""
        return self.shard_items or (64 if self.device.startswith("cuda") else 8)

    @property
    def suppressions_root(self) -> str:
        """`suppressions_url`, or its default."""
        return self.suppressions_url or f"{self.lake_root.rstrip('/')}-suppressions"

    @property
    def own_places(self) -> dict[str, str]:
        """Where our own things lie, by name: folders, `s3://` addresses, and SQLite's file."""
        places = {
            "transient store": self.transient_root,
            "lake": self.lake_root,
            "suppressions": self.suppressions_root,
            "home": str(self.home),
        }
        if self.records_address.startswith("sqlite:///"):
            places["records"] = self.records_address.removeprefix("sqlite:///")
        return places

    @property
    def records_address(self) -> str:
        """`records_url`, or its default."""
        return self.records_url or f"sqlite:///{self.home / 'records.db'}"

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return round(self.max_megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        """`max_megapixels` in pixels."""
        return round(self.max_megapixels * 1e6)

    @property
    def purge_after(self) -> timedelta:
        """From receipt to purge."""
        return timedelta(hours=self.purge_after_hours)


def _can_be_read(url: str) -> bool:
    from sqlalchemy import make_url  # where no address is given, nothing else would import it here

    try:
        make_url(url)
    except ValueError:  # what stands for the port is no number
        return False
    return True


def _root(place: str) -> str:
    return place.rstrip("/") if place.startswith("s3://") else os.path.abspath(place.removeprefix("file://"))
