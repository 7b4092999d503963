"""Where a candidate file lies. Its path names its permission; its name tells how old what it holds is.

- `industry=<tag>/grant=<grant id>/<batch id>-<shard>.parquet`: candidates of one batch. A shard is named for its bytes,
  so that a write that comes late, of a try with other photos or of a photo that was other then, replaces no file
- `industry=<tag>/grant=<grant id>/merged-<uuid7>.parquet`: several such files in one (see `lake.compact`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.batch import PROMISED_LIFE
from schemas.ids import BatchId, GrantId, parse_batch_id, parse_grant_id, received_at
from schemas.industries import Industry

_INDUSTRY, _GRANT = "industry=", "grant="
_FILE = re.compile(
    r"(?P<merged>merged-)?(?P<uuid>[0-9a-f-]{36})(?(merged)|-[0-9a-f]{6,12})\.parquet(\.partial-[0-9a-f]+)?"
)
_SHARD = 12
"""Digits of a file's hash that name it; files written before have a number of 6. More, and the name of a folder's half
written file would not be kept whole (`store.objects.folder`)."""

MAKING = timedelta(hours=1)
"""What is left of the promised life when a file that was never admitted goes; and how long a merge may take."""

SKEW = timedelta(minutes=10)
"""How far the clocks of two machines may differ."""


@dataclass(frozen=True)
class Place:
    """The folder of one grant's candidates for one industry."""

    industry: Industry
    grant_id: GrantId

    @property
    def prefix(self) -> str:
        """Relative to the lake's root, without a slash at its end."""
        return f"{_INDUSTRY}{self.industry}/{_GRANT}{self.grant_id}"


def file_key(place: Place, batch_id: BatchId, sha256: str) -> str:
    """The file of these bytes, which holds candidates of a batch."""
    return f"{place.prefix}/{batch_id}-{sha256[:_SHARD]}.parquet"


def merged_key(place: Place, uuid7: str) -> str:
    """A merged file. `uuid7` carries the time of the merge, as a batch id does (`schemas.ids.new_batch_id`)."""
    return f"{place.prefix}/merged-{uuid7}.parquet"


def parse_place(industry_folder: str, grant_folder: str) -> Place | None:
    """The place that two folder names stand for; None when they are none of ours."""
    tag, grant = industry_folder.removeprefix(_INDUSTRY), grant_folder.removeprefix(_GRANT)
    grant_id = parse_grant_id(grant)
    if industry_folder == tag or grant_folder == grant or grant_id is None or tag not in list(Industry):
        return None
    return Place(Industry(tag), grant_id)


def place_of(key: str) -> Place | None:
    """The place that a file's key names; None when it is no key of ours."""
    parts = key.split("/")
    return parse_place(parts[0], parts[1]) if len(parts) == 3 else None


def made_from(key: str) -> datetime | None:
    """When the batch behind a file was received, or the file was merged; None when its name is none of ours."""
    found = _FILE.fullmatch(key.rsplit("/", 1)[-1])
    batch_id = parse_batch_id(found["uuid"]) if found else None
    return received_at(batch_id) if batch_id is not None else None


def may_be_in_the_making(key: str, now: datetime) -> bool:
    """Whether a file of a live grant without an admission can still get one.

    Until then it is a customer's image like any other, so it goes within the promise, counted from its batch's receipt.
    """
    since = made_from(key)
    life = MAKING if key.rsplit("/", 1)[-1].startswith("merged-") else PROMISED_LIFE - MAKING
    return since is not None and -MAKING <= now - since < life


def may_be_of_a_newer_grant(key: str, ledger_read_at: datetime) -> bool:
    """Whether the grant of this file can be younger than a look into the ledger: a grant is older than its batches."""
    since = made_from(key)
    return since is not None and ledger_read_at - SKEW <= since <= ledger_read_at + PROMISED_LIFE
