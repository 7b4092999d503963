"""The secrets of a first start: all that the compose file refers to, once, and the logins on a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from store.records.database import open_records
from store.settings import Settings
from tests.consent.postgres import _programs, new_database
from tests.deploy.files import COMPOSE, DEPLOY, ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a key is given to another user: needs root")


def first_start(folder: Path) -> None:
    subprocess.run(["sh", DEPLOY / "first-start.sh", folder], check=True, capture_output=True)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "secrets"
    first_start(folder)
    return folder


def variables(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_all_that_the_compose_file_refers_to_is_made(secrets: Path) -> None:
    files = {file for service in COMPOSE["services"].values() for file in service.get("env_file", [])}
    files |= {each["file"] for each in COMPOSE["secrets"].values() if each["file"].startswith("secrets/")}
    assert len(files) > 10
    assert not [file for file in files if not (secrets / Path(file).name).read_text().strip()]


def test_nobody_else_reads_them_and_git_never_takes_them(secrets: Path) -> None:
    for path in secrets.iterdir():
        assert path.suffix == ".crt" or path.stat().st_mode & 0o077 == 0, path.name
    assert (secrets / "postgres.key").stat().st_uid == 999
    for path in ("deploy/secrets/work.env", "deploy/.env", "own/secrets/work.env"):
        ignored = ["git", "check-ignore", "--no-index", path]
        assert subprocess.run(ignored, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_run_again_it_changes_nothing_and_makes_what_is_missing_with_the_same_words(secrets: Path) -> None:
    before = contents(secrets)
    (secrets / "work.env").unlink()
    (secrets / "logins.sql").unlink()
    first_start(secrets)
    assert contents(secrets) == before


@pytest.mark.parametrize("words", range(8))
@pytest.mark.parametrize("end", ["kill -9 0", "exit 1"])
def test_broken_off_anywhere_the_next_run_makes_all_of_it(secrets: Path, tmp_path: Path, end: str, words: int) -> None:
    """After so many passwords all of the run is killed, or no more can be made."""
    openssl, asked = shutil.which("openssl"), tmp_path / "asked"
    (tmp_path / "openssl").write_text(
        f'#!/bin/sh\nif [ "$1" = rand ]; then echo >> {asked}; [ $(wc -l < {asked}) -le {words} ] || {end}; fi\n'
        f'exec {openssl} "$@"\n'
    )
    (tmp_path / "openssl").chmod(0o755)
    path, broken_off = f"{tmp_path}:{os.environ['PATH']}", tmp_path / "secrets"
    started = ["sh", DEPLOY / "first-start.sh", broken_off]
    run = subprocess.run(started, env={"PATH": path}, capture_output=True, check=False, start_new_session=True)
    assert run.returncode != 0
    first_start(broken_off)
    shapes = [{name: shape(text) for name, text in contents(each).items()} for each in (secrets, broken_off)]
    assert shapes[0] == shapes[1]


def shape(text: str) -> str:
    """All but what is random, in certificates also their number of letters."""
    return re.sub(r"(-----\n)[^-]+", r"\1", re.sub(r"[0-9a-f]{48}", "word", text))


def test_each_deployment_has_words_of_its_own(secrets: Path, tmp_path: Path) -> None:
    first_start(tmp_path / "other")
    other = contents(tmp_path / "other")
    same = [name for name, text in contents(secrets).items() if other[name] == text]
    assert same == []


def test_each_role_knows_its_own_words_and_no_others(secrets: Path) -> None:
    stores = {"BGBATCH_S3_KEY", "BGBATCH_S3_SECRET"}
    known = {path.stem: set(variables(path)) for path in secrets.glob("*.env")}
    assert known == {
        "objects": stores,
        "worker": stores | {"RAY_AUTH_TOKEN"},
        "portal": stores | {"BGBATCH_RECORDS_URL"},
        "cleanup": stores | {"BGBATCH_RECORDS_URL"},
        "work": stores | {"BGBATCH_RECORDS_URL", "PREFECT_API_AUTH_STRING", "RAY_AUTH_TOKEN"},
        "owner": stores | {"BGBATCH_RECORDS_URL", "PGPASSWORD"},
        "prefect-server": {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_API_AUTH_STRING"},
    }
    passwords = {
        name: make_url(variables(secrets / f"{name}.env")["BGBATCH_RECORDS_URL"]).password
        for name in ("portal", "cleanup", "work", "owner")
    }
    assert len(set(passwords.values())) == 4


def test_the_logins_are_made_in_their_roles_and_once(secrets: Path) -> None:
    address = new_database()
    open_records(Settings(records_url=address)).engine.dispose()
    url = address.replace("+psycopg", "")
    psql = [_programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", DEPLOY / "postgres" / "roles.sql"]
    for _ in range(2):  # at each start
        subprocess.run([*psql, "-f", secrets / "logins.sql", url], check=True, capture_output=True)
    with psycopg.connect(url) as owner:
        rows = owner.execute(
            "SELECT m.rolname, r.rolname FROM pg_auth_members JOIN pg_roles m ON m.oid = member "
            "JOIN pg_roles r ON r.oid = roleid WHERE m.rolname IN ('portal', 'dispatcher', 'cleanup', 'prefect')"
        ).fetchall()
        assert sorted(rows) == [
            ("cleanup", "bgbatch_cleanup"),
            ("dispatcher", "bgbatch_portal"),
            ("portal", "bgbatch_portal"),
        ]
        databases = owner.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'prefect'"
        ).fetchall()
        assert databases == [("prefect",)]
    for name in ("portal", "work", "cleanup"):
        said = make_url(variables(secrets / f"{name}.env")["BGBATCH_RECORDS_URL"])
        line = f"ALTER ROLE {said.username} PASSWORD '{said.password}';"
        assert re.search(f"^{re.escape(line)}$", (secrets / "logins.sql").read_text(), re.M), name


def test_an_owner_who_is_no_superuser_as_of_a_managed_postgresql_makes_prefects_database(secrets: Path) -> None:
    """Roles are the whole server's, so under another name here."""
    address = make_url(new_database().replace("+psycopg", ""))
    with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as server:
        server.execute("CREATE ROLE managing LOGIN CREATEROLE CREATEDB")
    url = address.set(username="managing").render_as_string(hide_password=False)
    lines = [line for line in (secrets / "logins.sql").read_text().splitlines() if "prefect" in line]
    script = "\n".join(lines).replace("prefect", "their_prefect")
    psql = [_programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", url]
    for _ in range(2):
        done = subprocess.run(psql, input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
