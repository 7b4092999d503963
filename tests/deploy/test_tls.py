"""PostgreSQL and the S3 server started with the deploy files' own options and certificates: no word without TLS."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from lake.reading import arrow_filesystem
from schemas.errors import StoreFault
from store.objects.object_store import open_store
from store.objects.s3 import S3, _filesystem
from store.records.database import open_records
from store.settings import Settings
from tests.consent.postgres import _programs, _unprivileged_user, wait_until_started
from tests.deploy.files import COMPOSE, DEPLOY, called
from tests.ports import free_port, wait_for
from tests.store.rclone import KEY, SECRET

SERVICES = COMPOSE["services"]


def certificates(folder: Path) -> Path:
    """As an operator makes them. The S3 server is called localhost here, as nobody can say where `objects` is."""
    make = ["sh", str(DEPLOY / "certificates.sh"), str(folder), "postgres", "localhost"]
    subprocess.run(make, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by somebody else's authority."""
    return certificates(tmp_path_factory.mktemp("others"))


def options(service: str, folder: Path) -> list[str]:
    """What its command line says, with secrets where they lie here."""
    files = {name: each["file"].replace("objects.", "localhost.") for name, each in COMPOSE["secrets"].items()}
    found = " ".join(SERVICES[service]["command"])
    for name in SERVICES[service]["secrets"]:
        file = files[name]
        here = folder / Path(file).name if file.startswith("secrets/") else DEPLOY / file
        found = found.replace(f"/run/secrets/{name}", str(here))
    assert "/run/secrets" not in found
    return found.split()


@pytest.fixture(scope="module")
def cluster(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `initdb` makes, and beside it all that the server's options name."""
    home = tmp_path_factory.mktemp("postgres")
    shutil.copytree(folder, home, dirs_exist_ok=True)
    shutil.copy(DEPLOY / "postgres" / "pg_hba.conf", home)
    if (user := _unprivileged_user()) is not None:
        for path in (home, *home.iterdir()):
            shutil.chown(path, user.pw_uid, user.pw_gid)
        for parent in (each for each in home.parents if not each.stat().st_mode & stat.S_IXOTH):
            parent.chmod(0o755)  # it goes through them
    (home / "word").write_text("secret")
    asked = ["-U", "tests", "-A", "scram-sha-256", f"--pwfile={home / 'word'}", "-E", "UTF8", "--locale=C"]
    (home / "word").chmod(0o644)
    subprocess.run([_programs() / "initdb", "-D", home / "data", *asked], check=True, **as_its_user())
    return home


def as_its_user() -> dict[str, Any]:
    run: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": "/"}
    if (user := _unprivileged_user()) is not None:
        run |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return run


@contextmanager
def postgres(home: Path, listening: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    own = [f"-cport={port}", f"-clisten_addresses={listening}", f"-cunix_socket_directories={home}", "-cfsync=off"]
    program, *said = [each.replace(str(DEPLOY / "postgres"), str(home)) for each in options("postgres", home)]
    words = [_programs() / program, "-D", home / "data", *said, *own]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, **as_its_user())
    try:
        yield port, process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def records(cluster: Path) -> Iterator[str]:
    """The address of a PostgreSQL, without what a client says of TLS."""
    with postgres(cluster, "127.0.0.1") as (port, process):
        wait_until_started(port, process)
        yield f"postgresql+psycopg://tests:secret@postgres:{port}/postgres?hostaddr=127.0.0.1"


def test_postgresql_is_not_called_ready_while_its_image_makes_the_database(cluster: Path) -> None:
    """For that a first server runs, which no network reaches: who began then would be refused, and the start end."""
    in_cluster = called("StatefulSet", "postgres")["spec"]["template"]["spec"]["containers"][0]
    checks = [SERVICES["postgres"]["healthcheck"]["test"][1:]]
    checks += [in_cluster[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe")]
    for listening, answer in (("", False), ("127.0.0.1", True)):
        with postgres(cluster, listening) as (port, process):
            its = {"PGHOST": str(cluster), "PGPORT": str(port)}  # by itself it asks at the server's own socket
            until_there = [_programs() / "pg_isready", "-q", "-h", cluster]
            while subprocess.run(until_there, env=its, check=False).returncode != 0:
                assert process.poll() is None
                time.sleep(0.05)
            for name, *words in checks:
                asked = subprocess.run([_programs() / name, *words], env=its, capture_output=True, check=False)
                assert (asked.returncode == 0) is answer


@pytest.fixture
def trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of every role, as the compose file gives it."""
    for name, value in SERVICES["portal"]["environment"].items():
        if name.startswith(("PGSSL", "AWS_")):
            monkeypatch.setenv(name, value.replace("/run/secrets/authority", str(folder / "authority.crt")))


def test_records_are_reached_by_tls_once_the_environment_names_their_authority(records: str, trusted: None) -> None:
    opened = open_records(Settings(records_url=records))
    with opened.reading() as connection:
        said = connection.execute(text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar()
    opened.engine.dispose()
    assert said == "TLSv1.3"


def test_without_tls_or_by_another_authority_or_name_nobody_speaks_to_the_records(
    records: str, trusted: None, others: Path
) -> None:
    plain, misled = f"{records}&sslmode=disable", f"{records}&sslrootcert={others / 'authority.crt'}"
    elsewhere = records.replace("@postgres:", "@localhost:")
    for url, why in ((plain, "no pg_hba.conf entry"), (misled, "verify failed"), (elsewhere, "does not match host")):
        with pytest.raises(OperationalError, match=why):
            open_records(Settings(records_url=url))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(records.replace("+psycopg", "").replace(":secret@", ":wrong@"))


@pytest.fixture(scope="module")
def objects(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home, port = tmp_path_factory.mktemp("objects"), free_port()
    (home / "rclone.conf").touch()
    said = [
        each.replace("/data", str(home)).replace(":8333", f"localhost:{port}") for each in options("objects", folder)
    ]
    program = [Path(sys.executable).with_name("rclone"), "--config", home / "rclone.conf"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen([*program, *said, f"--auth-key={KEY},{SECRET}"], stderr=log)
    wait_for(port, process)  # as the check of its health does every ten seconds, without a handshake
    yield Settings(s3_endpoint=f"https://localhost:{port}", s3_key=KEY, s3_secret=SECRET)
    process.terminate()
    process.wait()
    assert (home / "log").read_text() == "", "what is noted at each check hides what matters"


def test_objects_are_reached_by_tls_once_the_environment_names_their_authority(
    objects: Settings, trusted: None
) -> None:
    S3("s3://batches", objects).call("create_bucket")
    store = open_store("s3://batches/here", objects)
    store.write("a", b"photo")
    assert store.read("a") == b"photo"


def test_pyarrow_which_reads_the_lake_trusts_the_same_authority_and_no_other(
    objects: Settings, others: Path, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    S3("s3://lake", objects).call("create_bucket")
    store = open_store("s3://lake/here", objects)
    store.write("a", b"rows")
    filesystem, root = arrow_filesystem(store)
    with filesystem.open_input_file(f"{root}/a") as file:
        assert file.read() == b"rows"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(others / "authority.crt"))
    misled, _ = arrow_filesystem(store)
    with pytest.raises(OSError, match="certificate"):
        misled.open_input_file(f"{root}/a")


def test_without_tls_or_by_another_authority_nobody_speaks_to_the_objects(
    objects: Settings, others: Path, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = objects.model_copy(update={"s3_endpoint": objects.s3_endpoint.replace("https", "http")})
    with pytest.raises(StoreFault):
        open_store("s3://batches/here", plain).write("b", b"photo")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(others / "authority.crt"))
    _filesystem.cache_clear()  # as another process
    with pytest.raises(StoreFault):
        open_store("s3://batches/here", objects).write("b", b"photo")


def test_kubernetes_postgresql_has_the_same_rules_and_every_client_the_authority() -> None:
    assert called("ConfigMap", "postgres-access")["data"]["pg_hba.conf"].splitlines() == [
        line for line in (DEPLOY / "postgres" / "pg_hba.conf").read_text().splitlines() if not line.startswith("#")
    ]
    (server,) = called("StatefulSet", "postgres")["spec"]["template"]["spec"]["containers"]

    def names(words: list[str]) -> list[str]:
        return [match.group(1) for each in words if (match := re.match(r"-c(\w+)=", each))]

    assert names(server["args"]) == names(SERVICES["postgres"]["command"])
    settings = called("ConfigMap", "settings")["data"]
    assert settings["PGSSLMODE"] == "verify-full"
    for name in ("portal", "dispatcher", "cleanup", "prefect"):
        spec = called("Deployment", name)["spec"]["template"]["spec"]
        (volume,) = [each for each in spec["volumes"] if each["name"] == "postgres-ca"]
        assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        every = (*spec.get("initContainers", ()), *spec["containers"])
        held = [each for each in every if each["name"] not in ("ray-node", "certificate")]
        for container in held:
            (where,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "postgres-ca"]
            assert settings["PGSSLROOTCERT"] == f"{where}/ca.crt"
