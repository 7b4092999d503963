"""All of a deployment on this machine, each part a real process: Ray on several hosts, PostgreSQL, an S3 server,
Prefect's server, the portal, and the worker that runs the flows. What ends is started again, as Kubernetes would.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from consent.button import Press, press
from consent.ledger import Refusal, newest_event, withdraw
from consent.notice import CURRENT
from flows.parts import open_parts
from schemas.clock import system_clock
from schemas.consent import Method
from schemas.ids import BatchId, GrantId
from schemas.industries import Industry
from store.records.api_keys import create_key
from store.records.batches import get_batch
from store.records.line import find_submission
from store.records.people import create_account
from store.records.sessions import find_session, open_session
from store.settings import Settings
from tests.cluster.hosts import PORT, Hosts
from tests.cluster.network import HUB, Network
from tests.cluster.servers import Engine, Objects, Portal, Postgres, Runner
from tests.store.rclone import SECRET

INDUSTRY = Industry.AUTOMOTIVE
_ROOT = Path(__file__).parents[2]


class Whole(torch.nn.Module):
    """The cheapest network: all of each photo is subject."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(image[:, :1])


class World:
    """For many trials, one after another. A program that runs apart can have one, once."""

    def __init__(self, workers: int = 3) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bgb-", dir="/tmp"))  # short: sockets lie there
        self._folder.chmod(0o755)  # the database's user goes through it
        home = self._folder / "home"
        home.mkdir()
        network = Network()
        threads = ThreadPoolExecutor()
        engine = threads.submit(Engine, self._folder / "engine")  # it takes as long as all the others
        self.records = Postgres(self._folder / "postgres")
        self.objects = Objects(self._folder / "objects")
        self.settings = self.objects.settings(
            Settings(
                home=home,
                records_url=self.records.url,
                ray_address=f"{HUB}:{PORT}",
                actors=workers,
                actor_idle_minutes=0,
                network="own",
                weights=_cheap_network(self._folder),
            )
        )
        self.hosts = Hosts(network, home, workers, {"BGBATCH_S3_SECRET": SECRET, "PYTHONPATH": str(_ROOT)})
        self.parts = open_parts(self.settings, system_clock)
        with self.parts.records.transaction() as connection:
            now = system_clock()
            self.account, self._person = create_account(connection, "Acme", "a@acme.example", now, os.urandom)
            _, self.key = create_key(connection, self.account, self._person, "trials", now, os.urandom)
        self.engine = engine.result()
        threads.shutdown()
        self.portal = Portal(self._folder / "portal", self._environment)
        self.runner = Runner(self._folder / "runner", self._environment)

    def tend(self) -> list[str]:
        """Start again whatever has ended; returns what, and what the runner said when it was that."""
        again = self.hosts.tend()
        for server in (self.records, self.objects, self.engine, self.portal):
            if server.is_down:
                server.start()
                again.append(type(server).__name__)
        if self.runner.is_down:
            again.append(f"runner: {self.runner.last_word()}")
            self.runner.start()
        return again

    def grant(self) -> GrantId:
        """The owner turns AI Training Data on, on the account page."""
        now = system_clock()
        with self.parts.records.transaction() as connection:
            token = open_session(connection, self._person, now, os.urandom)
            session = find_session(connection, token, now)
            assert session is not None
            newest = newest_event(connection, session.person.account_id)
            shown = (CURRENT.version, CURRENT.sha256, "/account", now, newest)
            act = Press(token, session.form_token, (INDUSTRY,), *shown)
            (given,) = press(connection, act, now, os.urandom)
        return given.grant_id

    def withdraw(self) -> None:
        """And off."""
        by = Refusal(self.account, Method.API, system_clock(), reason="a trial")
        with self.parts.records.transaction() as connection:
            withdraw(connection, by, INDUSTRY, system_clock())

    def state(self, batch_id: BatchId) -> str:
        """For whoever looks for a fault: what the records say of a batch, and the last words of those that run it."""
        with self.parts.records.reading() as connection:
            batch, stands = get_batch(connection, batch_id), find_submission(connection, batch_id)
        said = [f"--- {type(each).__name__}\n{each.says()}" for each in (self.engine, self.records, self.portal)]
        return "\n".join([repr(batch), repr(stands), *said, f"--- Runner\n{self.runner.stacks()}"])

    def end(self, keep: bool = False) -> None:
        """All of it, and its folder; `keep`: what each part said stays there, for whoever looks for a fault."""
        self.parts.records.engine.dispose()
        for server in (self.runner, self.portal, self.engine):
            server.kill()
        self.hosts.end()
        self.objects.kill()
        self.records.kill()
        if not keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _environment(self) -> Mapping[str, str]:
        """Of the portal and the runner: settings, and the secrets of their role."""
        given = self.settings.without_secrets() | {"records_url": self.records.url, "s3_secret": SECRET}
        named = {f"BGBATCH_{name.upper()}": str(value) for name, value in given.items() if value is not None}
        return named | self.engine.of_its_clients | self.hosts.token | {"PYTHONPATH": str(_ROOT)}


def _cheap_network(folder: Path) -> Path:
    path = folder / "whole.pt"
    torch.jit.script(Whole()).save(path)
    contract = {"side": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}
    path.with_suffix(".contract.json").write_text(json.dumps(contract))
    return path
