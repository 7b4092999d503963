"""What a copy says of itself: the plan while it is made, the manifest when it is whole."""

from __future__ import annotations

from enum import StrEnum

from schemas.ids import GrantId
from schemas.industries import Industry
from schemas.record import Moment, Record

MANIFEST = "manifest.json"
PLAN = "plan.json"
DONE = "done"
CARD = "README.md"
PLOTS = "plots"


class Kind(StrEnum):
    """What the files of a copy are."""

    PARQUET = "parquet"
    WEBDATASET = "webdataset"
    FILES = "files"
    HF = "hf"


class Split(StrEnum):
    """A grant is wholly in one of them."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


Shares = tuple[float, float, float]
"""How many customers in all go into train, validation and test: 80, 10, 10, or any numbers of that ratio."""

USUAL: Shares = (80, 10, 10)


class Wanted(Record):
    """The query as it was asked."""

    industry: Industry
    where: str | None
    limit: int | None
    hardest_first: bool
    leave_out: str | None
    shares: Shares = USUAL


class Source(Record):
    """Candidates in one lake file."""

    key: str
    candidates: tuple[str, ...]


class Part(Record):
    """Candidates of one grant that become one file (or one group of files) of the copy."""

    name: str
    split: Split
    industry: Industry
    grant_id: GrantId
    sources: tuple[Source, ...]
    duplicate_of: dict[str, str]
    near_duplicate_of: dict[str, str]

    @property
    def rows(self) -> int:
        """Candidates."""
        return sum(len(source.candidates) for source in self.sources)


class CopiedFile(Record):
    """A file of the copy; `path` relative to it. `rows`: candidates that are (wholly or partly) in it."""

    path: str
    sha256: str
    bytes: int
    rows: int
    grant_id: GrantId
    split: Split


class DonePart(Record):
    """A part that is written. No files: its candidates were taken back meanwhile."""

    name: str
    rows: int
    files: tuple[CopiedFile, ...]


class TakenBack(Record):
    """A grant that ended after the copy was made."""

    grant_id: GrantId
    rows: int
    erased_at: Moment


class Summary(Record):
    """Numbers of all that was chosen, for the card: nobody's name, no image."""

    plots: dict[str, tuple[tuple[str, int], ...]]
    duplicates: int
    near_duplicates: int
    networks: tuple[str, ...]


class _Copy(Record):
    """What is known of a copy from the start. `lake_state` names the lake's content that it was chosen from."""

    pull_id: str
    kind: Kind
    recipient: str
    wanted: Wanted
    lake_state: str
    started_at: Moment
    summary: Summary


class Plan(_Copy):
    """What a pull set out to do. A pull that was interrupted goes on with it."""

    parts: tuple[Part, ...]


class Manifest(_Copy):
    """What the copy holds."""

    finished_at: Moment
    licence: str
    schema_version: int
    rows: int
    rows_by_grant: dict[GrantId, int]
    rows_by_split: dict[Split, int]
    files: tuple[CopiedFile, ...]
    taken_back: tuple[TakenBack, ...] = ()
