"""Joining a cluster that is not there, and starting one for somebody without a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port

JOIN = """
import sys
from schemas.errors import WorkersLost
from store.settings import Settings
from workers.placement import connect

try:
    connect(Settings(home=sys.argv[1], ray_address=f"127.0.0.1:{sys.argv[2]}"))
except WorkersLost as fault:
    print(fault)
"""


def test_a_cluster_that_does_not_answer_is_told_at_once(tmp_path: Path) -> None:
    """In a process of its own: Ray's own patience ends with `timeout` alone."""
    asked = [sys.executable, "-c", JOIN, str(tmp_path), str(free_port())]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert said.stdout.startswith("No Ray cluster answers at BGBATCH_RAY_ADDRESS."), said.stderr


START = """
import sys
from flows.engine import prepare
from store.settings import Settings
from workers.placement import connect

settings = Settings(home=sys.argv[1])
prepare(settings)
connect(settings)
print("joined")
"""


def test_a_ray_that_does_not_start_here_is_told_in_a_sentence(tmp_path: Path) -> None:
    """As on a full disk, for which Ray's own start waits half a minute; here the names of its sockets are too long."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    asked = [sys.executable, "-c", START, str(tmp_path)]
    said = subprocess.run(asked, env=os.environ | {"RAY_TMPDIR": str(folder)}, capture_output=True, text=True)
    assert "WorkersLost: Ray did not start on this machine (OSError)." in said.stderr


def test_ray_starts_for_a_user_whose_home_cannot_be(tmp_path: Path) -> None:
    """As of a system's users: theirs is /nonexistent."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"} | {"HOME": "/dev/null/home"}
    asked = [sys.executable, "-c", START, str(tmp_path)]
    said = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=300)
    assert said.stdout == "joined\n", said.stderr


WITH_PASSWORDS = """
import os, sys
from pathlib import Path
from store.settings import Settings
from workers.placement import connect

connect(Settings(home=Path(sys.argv[1])))
import ray
given = ray.get(ray.remote(lambda: dict(os.environ)).remote())
print(sorted(name for name, value in given.items() if "open sesame" in value))
"""


def test_no_worker_is_given_a_password_of_the_records_of_mail_or_of_prefect(tmp_path: Path) -> None:
    names = ("BGBATCH_RECORDS_URL", "bgbatch_smtp_url", "PGPASSWORD", "BGBATCH_S3_SECRET")
    of_prefect = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_SERVER_DATABASE_PASSWORD")
    given = os.environ | dict.fromkeys((*names, *of_prefect), "sqlite:////open sesame")
    asked = [sys.executable, "-c", WITH_PASSWORDS, str(tmp_path)]
    said = subprocess.run(asked, env=given, capture_output=True, text=True, timeout=300)
    assert said.stdout == "['BGBATCH_S3_SECRET']\n", said.stderr


NAMED = """
import sys
from pathlib import Path
from store.settings import Settings
from workers.placement import connect

connect(Settings(home=Path(sys.argv[1])))
import ray
jobs = ray._private.worker.global_worker.gcs_client.get_all_job_info()
print([each.entrypoint for each in jobs.values()])
"""


def test_a_cluster_is_not_told_the_command_which_names_customers_files(tmp_path: Path) -> None:
    words = ["submit", "grandmothers-portrait.jpg", os.fsdecode(b"f\xfcr Acme.jpg"), "--account", "Acme"]
    asked = [sys.executable, "-c", NAMED, str(tmp_path), *words]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert said.stdout == "['bgbatch']\n", said.stderr
