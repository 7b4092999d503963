"""docs/api.md is true as printed: its commands run against a real portal, its check of a signature knows ours."""

from __future__ import annotations

import os
import re
import subprocess
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from flows.parts import open_parts
from portal.webhooks import sign
from schemas.clock import system_clock
from store.records.api_keys import create_key
from store.records.batches import list_batches
from store.records.people import create_account
from tests.api.conftest import jpeg
from tests.api.stand import portal, running
from tests.records import at_home

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL))


def test_the_commands_send_watch_and_fetch(tmp_path: Path) -> None:
    home = tmp_path / "home"
    parts = open_parts(at_home(home), system_clock)
    with parts.records.transaction() as connection:
        account, person = create_account(connection, "Acme", "o@acme.example", system_clock(), os.urandom)
        _, key = create_key(connection, account, person, "tests", system_clock(), os.urandom)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(size=(640, 480)))
    work = "from tests.api.stand import work; work()"
    with portal(home) as (address, _), running(home, work):
        env = os.environ | {"PORTAL": address, "KEY": key, "no_proxy": "127.0.0.1"}
        script = ["bash", "-euo", "pipefail", "-c", blocks("sh")]
        done = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout[-500:]
    assert "event: end" in done.stdout
    with zipfile.ZipFile(tmp_path / "cutouts.zip") as archive:
        assert archive.namelist() == ["VIN1/1.png", "VIN1/2.png"]
    with parts.records.reading() as connection:
        newest = list_batches(connection)[0]
    manifest = parts.transient.manifest(newest.stamp.batch_id)
    assert parts.transient.source(manifest.stamp, manifest.items[0]) == (tmp_path / "1.jpg").read_bytes()
    parts.records.engine.dispose()


def test_the_check_of_a_signature_believes_us_and_nobody_else() -> None:
    known: dict[str, object] = {}
    exec(blocks("python"), known)
    is_genuine = known["is_genuine"]
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"type":"batch.ended"}'

    def headers(moment: float) -> dict[str, str]:
        signature = sign(secret, "e1", datetime.fromtimestamp(moment, UTC), body)
        return {"webhook-id": "e1", "webhook-timestamp": str(int(moment)), "webhook-signature": signature}

    now = time.time()
    assert is_genuine(secret, headers(now), body)  # type: ignore[operator]
    assert not is_genuine(secret, headers(now), body + b" ")  # type: ignore[operator]
    assert not is_genuine(secret, headers(now - 400), body)  # type: ignore[operator]
    assert not is_genuine("whsec_" + "A" * 32, headers(now), body)  # type: ignore[operator]
