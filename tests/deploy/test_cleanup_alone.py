"""The cleanup as it is deployed, with everything else down: no records, no Ray, no Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from schemas.ids import new_batch_id, received_at
from store.transient import batch_prefix
from tests.store.rclone import free_port


def test_what_is_due_goes_while_the_records_are_down_and_somebody_is_told(tmp_path: Path) -> None:
    old = new_batch_id(datetime.now(UTC) - timedelta(hours=23, minutes=10), Random(1).randbytes)
    young = new_batch_id(datetime.now(UTC) - timedelta(hours=2), Random(2).randbytes)
    places = {each: tmp_path / "home" / "transient" / batch_prefix(each) / "source" for each in (old, young)}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "1").write_bytes(b"a photo")
    assert received_at(old) < received_at(young)
    environment = os.environ | {
        "BGBATCH_HOME": str(tmp_path / "home"),
        "BGBATCH_RECORDS_URL": f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/records",
    }
    program = Path(sys.executable).with_name("bgbatch")
    run = subprocess.run([program, "cleanup"], env=environment, capture_output=True, text=True, check=False)
    assert not (places[old] / "1").exists(), run.stderr
    assert (places[young] / "1").exists()
    assert run.returncode == 1
    assert "records_fault" in run.stderr
