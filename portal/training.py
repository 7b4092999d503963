"""For notebooks and training loops: `lake = open_lake()`, then `lake.dataset(...)`, `lake.torch_dataset(...)`.

Needs the settings of the command line (`bgbatch settings`): where the lake and the records are.
"""

from __future__ import annotations

from flows.candidates import lake_of
from flows.parts import open_parts
from lake.reading import Lake
from schemas.clock import system_clock
from store.settings import Settings


def open_lake() -> Lake:
    """The lake that the environment names, with the ledger asked for live grants at each look."""
    return lake_of(open_parts(Settings(), system_clock), reopen=open_lake)
