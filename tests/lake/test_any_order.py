"""Any order of admit, compact, pull, withdraw, reconcile and crash: no row without a live grant, each live row once.

A crash is a `KeyboardInterrupt` out of the object store, before or after one of its writes or deletions: nothing
catches it, and what the records had committed by then stays.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lake.compact import compact
from lake.copies.manifest import Kind
from lake.erase import reconcile
from lake.pull import Order, pull
from lake.query import Query
from lake.reading import Lake, Snapshot
from lake.verify import verify
from lake.write import candidate_id
from schemas.clock import Clock
from schemas.consent import Grant
from schemas.errors import NotFound, StoreFault
from schemas.ids import GrantId
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from tests.lake.conftest import AUTO, World, a_photo, build_world

PHOTOS = [a_photo(seed) for seed in range(3)]
_template: list[Path] = []


class Crashing(Folder):
    """A folder whose user dies at the `at`-th change of it from now, before or after that change."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.at = 0
        self.after = False

    def put(self, key: str, data: bytes) -> None:
        self._change(lambda: super(Crashing, self).put(key, data))

    def remove(self, objects):  # type: ignore[no-untyped-def]
        return self._change(lambda: super(Crashing, self).remove(objects))

    def _change(self, change: Callable[[], object]):  # type: ignore[no-untyped-def]
        self.at -= 1
        if self.at == 0 and not self.after:
            raise KeyboardInterrupt
        result = change()
        if self.at == 0:
            raise KeyboardInterrupt
        return result


class AnyOrder(RuleBasedStateMachine):
    """`admitted`: what the records were told, by grant. `snapshots`: what readers hold that began before."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        if _template:
            shutil.copy(_template[0], self.home / "records.db")
        self.world: World = build_world(self.home)
        if not _template:
            self._keep_template()
        self.folder = Crashing(str(self.home / "lake"))
        self.world.lake = ObjectStore(self.folder, pause=lambda seconds: None)
        self.admitted: dict[GrantId, set[str]] = {}
        self.written: list = []  # type: ignore[type-arg]
        self.snapshots: list[Snapshot] = []

    def _keep_template(self) -> None:
        path = Path(tempfile.mkdtemp()) / "records.db"
        with self.world.records.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        shutil.copy(self.home / "records.db", path)
        _template.append(path)

    def teardown(self) -> None:
        self.world.records.engine.dispose()
        shutil.rmtree(self.home)

    @initialize()
    def begin(self) -> None:
        """A customer with some files, so that there is something to merge, pull and take back."""
        self.grant()
        for _ in range(3):
            self._give(self.world.grants[self.world.live()[0]])

    @precondition(lambda self: len(self.world.live()) < 3)
    @rule()
    def grant(self) -> None:
        self.admitted[self.world.grant().grant_id] = set()

    @precondition(lambda self: self.world.live())
    @rule(data=st.data(), count=st.integers(1, 3))
    def write(self, data: st.DataObject, count: int) -> None:
        """An object without an admission: the flow may die here."""
        grant = self.world.grants[data.draw(st.sampled_from(self.world.live()))]
        self.written.append(self.world.write(self.world.batch(grant, PHOTOS[:count])))

    @precondition(lambda self: self.written)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        """Only while the grant is live: that is the gate's part."""
        file = data.draw(st.sampled_from(self.written))
        if file.grant_id not in self.world.live():
            return
        try:
            self.world.admit(file)
        except StoreFault:
            return  # reconcile took it; the flow would write it again
        self.admitted[file.grant_id] |= {candidate_id(file.batch_id, item) for item in file.items}

    @precondition(lambda self: self.world.live())
    @rule(data=st.data(), files=st.integers(1, 3))
    def give(self, data: st.DataObject, files: int) -> None:
        """Some batches of one customer, all the way into the lake."""
        grant = self.world.grants[data.draw(st.sampled_from(self.world.live()))]
        for _ in range(files):
            self._give(grant)

    def _give(self, grant: Grant) -> None:
        file = self.world.give(grant, 1)
        self.admitted[grant.grant_id] |= {candidate_id(file.batch_id, item) for item in file.items}

    @precondition(lambda self: self.world.live())
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.world.withdraw(self.world.grants[data.draw(st.sampled_from(self.world.live()))])

    @rule(hours=st.sampled_from([0.2, 1.0, 5.0, 25.0]))
    def pass_time(self, hours: float) -> None:
        self.world.pass_time(hours=hours)

    @rule()
    def begin_to_read(self) -> None:
        self.snapshots.append(self.world.reader().snapshot(AUTO))

    @rule(crash=st.sampled_from([0, 0, 0, 1, 2]), after=st.booleans())
    def merge(self, crash: int, after: bool) -> None:
        self._until(crash, after, lambda: compact(self.reader, self._is_live, self.clock, os.urandom, 2))

    @rule(crash=st.sampled_from([0, 0, 1, 2, 3]), after=st.booleans())
    def sweep(self, crash: int, after: bool) -> None:
        world = self.world
        whole = self._until(
            crash, after, lambda: reconcile(world.lake, world.records, world.live(), world.ended(), self.clock)
        )
        if whole:
            ended = {each.grant_id for each in world.ended()}
            keys = world.keys()
            assert not [key for key in keys if any(grant_id in key for grant_id in ended)]

    @rule(kind=st.sampled_from(list(Kind)), ends=st.sampled_from([False, False, True]))
    def pull(self, kind: Kind, ends: bool) -> None:
        """A copy holds the live rows once; one that ends during the pull is not in it."""
        world = self.world

        def on_part(done: int, of: int) -> None:
            if ends and done == of and world.live():
                world.withdraw(world.grants[world.live()[0]])

        copy = ObjectStore(Folder(tempfile.mkdtemp(dir=self.home)))
        pulled = pull(world.reader(), Query(AUTO), copy, self.clock, on_part, Order(kind))
        assert pulled.rows == len(self._expected())
        assert set(pulled.grants) <= set(world.live())
        if kind is Kind.PARQUET:
            root = Path(copy.storage.root)  # type: ignore[attr-defined]
            rows = [id_ for file in pulled.files for id_ in pq.read_table(root / file)["candidate_id"].to_pylist()]
            assert sorted(rows) == self._expected()
        assert verify(copy, world.records, world.live(), self.clock).is_good

    @invariant()
    def readers_see_each_live_row_once(self) -> None:
        found = self.world.reader().labels(AUTO, ("candidate_id",))
        assert sorted(found["candidate_id"].to_pylist()) == self._expected()

    @invariant()
    def readers_that_began_before_see_no_row_twice(self) -> None:
        for snapshot in self.snapshots:
            try:
                rows = self.world.reader().labels_of(snapshot, ("candidate_id",))["candidate_id"].to_pylist()
            except NotFound:
                continue  # they look again
            assert len(set(rows)) == len(rows)

    @property
    def reader(self) -> Lake:
        return self.world.reader()

    @property
    def clock(self) -> Clock:
        return self.world.clock

    def _is_live(self, connection: object, grant_id: GrantId) -> bool:
        return grant_id in self.world.live()

    def _expected(self) -> list[str]:
        return sorted(each for grant_id in self.world.live() for each in self.admitted[grant_id])

    def _until(self, crash: int, after: bool, act: Callable[[], object]) -> bool:
        """Act, or die at the `crash`-th change of the lake (0: never). Whether it came to its end."""
        self.folder.at, self.folder.after = crash, after
        try:
            act()
            return True
        except KeyboardInterrupt:
            return False
        finally:
            self.folder.at = 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
