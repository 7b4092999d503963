"""What the runbook tells somebody to type at night does what it says, and every code that it names can happen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from datetime import timedelta
from pathlib import Path
from random import Random
from textwrap import dedent

import alembic.command
import pytest
import yaml
from alembic.config import Config

import schemas.errors
from consent import ledger, suppression
from schemas.errors import BgbatchError
from schemas.ids import new_batch_id
from schemas.industries import Industry
from store.purging.purge import Due, is_due
from store.records import sessions
from store.records.database import _MIGRATIONS, open_records, unopened_records
from store.settings import Settings
from store.transient.transient_store import hour_name
from tests.consent.conftest import later, new_owner
from tests.consent.postgres import new_database
from tests.deploy.files import BASE, COMPOSE, DEPLOY, ROOT, called, pods
from tests.store.conftest import NOON

TEXT = (ROOT / "docs" / "runbook.md").read_text()


def codes(kind: type[BgbatchError] = BgbatchError) -> set[str]:
    return {kind.code}.union(*(codes(each) for each in kind.__subclasses__()))


def test_every_code_is_one_that_can_happen() -> None:
    assert schemas.errors
    found = set(re.findall(r"`([a-z]+_[a-z]+)`", TEXT)) - {"partially_completed", "bg_image"}
    assert found <= codes() | {"records_fault"}
    assert {"version_skew", "workers_lost", "device_absent", "ledger_broken"} <= found


def test_what_it_scales_and_looks_at_is_there() -> None:
    for name in re.findall(r"\bdeploy/([a-z]+)\b(?= --| -- )", TEXT):
        assert called("Deployment", name)
    labels = {template["metadata"]["labels"]["app"] for _, template in pods()}
    assert set(re.findall(r"-l app=(\w+)", TEXT)) <= labels


def test_each_compose_command_reads_the_secrets_and_is_told_its_settings_by_a_file() -> None:
    """Only root reads the secrets, and sudo drops variables; outside its folder Compose finds neither file."""
    commands = [each for each in re.findall(r"`([^`\n]+)`", TEXT) if "docker compose" in each]
    assert len(commands) >= 6
    known = set(COMPOSE["services"])
    for command in commands:
        verb = re.fullmatch(r"sudo docker compose (up -d|exec|restart)(?: --force-recreate)?(.*)", command)
        assert verb, command
        assert set(verb[2].partition("bgbatch")[0].split()) <= known
    asked = re.findall(r"\$\{(\w+):", (DEPLOY / "docker-compose.yaml").read_text())
    assert set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "docker-compose.yaml").read_text())) == {"BGBATCH_PORTAL_URL"}
    assert "`echo BGBATCH_PORTAL_URL=https://photos.example.com > .env`" in TEXT
    assert {"RAY_CPUS", "RAY_MEMORY"} <= set(asked)


def test_on_one_machine_backup_and_restore_name_what_there_is() -> None:
    script, services = block("owner()"), COMPOSE["services"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    given = services["postgres"]["environment"]
    assert f"-U {given['POSTGRES_USER']} -d {given['POSTGRES_DB']} " in script
    assert given["POSTGRES_PASSWORD_FILE"] in script
    (stopped,) = re.findall(r"docker compose stop ([a-z ]+?) +#", script)
    writing = {name for name, each in services.items() if {"portal.env", "work.env"} & set(secrets_of(each))}
    assert set(stopped.split()) == writing, "whoever writes is stopped, and the cleanup goes on"
    assert set(re.findall(r"(?:exec(?: -T)?|--no-deps) ([a-z]+)", script)) == {"postgres", "cleanup", "logins"}


def test_a_backup_from_before_an_upgrade_can_be_restored_and_upgraded_anew(tmp_path: Path) -> None:
    """A table that the upgrade had added stayed through the restore, and no later upgrade could make it."""
    before, url, dump = new_database(), new_database(), tmp_path / "records.dump"
    records = unopened_records(Settings(records_url=before))
    with records.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0013")
    records.engine.dispose()
    subprocess.run(["pg_dump", "--format=custom", "--file", dump, plain(before)], check=True)
    open_records(Settings(records_url=url)).engine.dispose()
    ((command, emptied),) = re.findall(r"^2\. `(test .*? psql \S+ (-c '.*?') && pg_restore .*?)`", TEXT, re.M)
    env = {**os.environ, "OWNER_URL": plain(url)}
    assert subprocess.run(["sh", "-c", command], env=env, cwd=DEPLOY, check=False).returncode == 1, "no backup is there"
    subprocess.run(["psql", plain(url), "-c", "TABLE accounts"], check=True)
    subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, check=True)
    open_records(Settings(records_url=url)).engine.dispose()
    on_one_machine = f"test -s records.dump && owner psql {emptied} &&  # step 2\n  owner pg_restore < records.dump\n"
    assert on_one_machine in block("owner()")


def test_records_of_sqlite_are_backed_up_under_a_running_portal_and_restored_with_what_was_taken_back_since(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    records = open_records(Settings(home=home))
    owner = new_owner(records)
    (grant,) = owner.press(Industry.AUTOMOTIVE)
    copy, forget, backup, restore = block("copy()").splitlines()
    env = os.environ | {"BGBATCH_HOME": str(home)}
    subprocess.run(["sh", "-ec", f"umask 022\n{copy}\n{backup}"], env=env, cwd=tmp_path, check=True)
    assert (tmp_path / "records-backup.db").stat().st_mode & 0o077 == 0, "people's addresses are in it"
    with records.transaction() as connection:
        ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
    with records.reading() as connection:
        suppression.note(connection, suppression.open_suppressions(Settings(home=home)))
    records.engine.dispose()
    subprocess.run(["sh", "-ec", f"{copy}\n{forget}\n{restore}"], env=env, cwd=tmp_path, check=True)
    with unopened_records(Settings(home=home)).reading() as connection:
        assert ledger.live_grant_ids(connection) == {grant.grant_id}, "the backup is of before"
        assert sessions.find_session(connection, owner.act.session_token, later(2)) is None
    verify = [Path(sys.executable).with_name("bgbatch"), "consent", "verify"]
    assert subprocess.run(verify, env=env, check=False, capture_output=True).returncode == 1
    subprocess.run([*verify, "--restored"], env=env, check=True, capture_output=True)
    with unopened_records(Settings(home=home)).reading() as connection:
        assert not ledger.live_grant_ids(connection)


def test_a_backup_of_a_home_without_records_leaves_the_one_that_there_was(tmp_path: Path) -> None:
    kept = tmp_path / "records-backup.db"
    open_records(Settings(home=tmp_path)).engine.dispose()
    (tmp_path / "records.db").rename(kept)
    before = kept.read_bytes()
    copy, _, backup, _ = block("copy()").splitlines()
    env = os.environ | {"BGBATCH_HOME": str(tmp_path)}
    assert subprocess.run(["sh", "-c", f"{copy}\n{backup}"], env=env, cwd=tmp_path, check=False).returncode
    assert kept.read_bytes() == before


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def secrets_of(service: dict) -> set[str]:
    return {Path(each).name for each in service.get("env_file", [])}


def test_all_of_it_starts_with_the_machine_by_compose_in_its_own_folder() -> None:
    """Docker starts containers in no order: who shares another's namespaces would stay down where that is not there."""
    unit = (DEPLOY / "bgbatch.service").read_text()
    (put,) = re.findall(r"`(sed .*? bgbatch\.service \|.*?)`", TEXT)
    assert f"#   {put}\n" in unit
    made = subprocess.run(
        ["sh", "-c", put.partition(" | sudo")[0]], cwd=DEPLOY, capture_output=True, text=True, check=True
    )
    assert f"WorkingDirectory={DEPLOY}\n" in made.stdout
    assert "After=docker.service\n" in made.stdout
    assert "ExecStart=docker compose up -d\n" in made.stdout


def test_a_start_that_waited_in_vain_is_tried_again_and_a_stop_leaves_nothing_running() -> None:
    """Where Ray or the records took longer than Compose waits, whoever needs them stayed down for good."""
    unit = (DEPLOY / "bgbatch.service").read_text()
    assert "Restart=on-failure\n" in unit
    assert "ExecStop=docker compose stop\n" in unit
    assert "WantedBy=multi-user.target docker.service\n" in unit, "else it would stay down when Docker is upgraded"


def test_what_it_says_to_delete_by_path_has_expired_and_lies_there() -> None:
    ((folder, hours),) = re.findall(r"folder `(\S+)/<hour>/` \(UTC\) whose hour\s+began over (\d+) hours ago", TEXT)
    ago = hour_name(NOON - timedelta(hours=int(hours)))
    assert is_due(ago, NOON, Settings().purge_after) is Due.WHOLLY
    assert is_due(hour_name(NOON - timedelta(hours=int(hours) - 1)), NOON, Settings().purge_after) is Due.PARTLY
    for said in (COMPOSE["services"]["cleanup"]["environment"], called("ConfigMap", "settings")["data"]):
        assert said["BGBATCH_TRANSIENT_URL"].endswith(f"/{folder}")
    batch_id = new_batch_id(NOON, Random(1).randbytes)
    assert int(batch_id.replace("-", "")[:12], 16) == NOON.timestamp() * 1000


with_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


def block(start: str) -> str:
    """The block of the runbook that begins with this line, its indent apart."""
    (found,) = (text for _, text in re.findall(r"```(sh|yaml)\n(.*?)```", TEXT, re.S) if text.strip().startswith(start))
    return dedent(found)


@with_kubectl
def test_the_overlay_gives_the_images_and_the_portal_their_addresses(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "deploy" / "kubernetes")
    (tmp_path / "own" / "kustomization.yaml").write_text(block("resources:"))
    run = subprocess.run(["kubectl", "kustomize", tmp_path / "own"], capture_output=True, check=True)
    made = list(yaml.safe_load_all(run.stdout))
    (settings,) = (each for each in made if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "settings")
    assert settings["data"]["BGBATCH_PORTAL_URL"] == "https://photos.example.com"
    images = set(re.findall(r"image: (\S*bgbatch\S*)", run.stdout.decode()))
    assert images == {"registry.example.com/bgbatch:0.1.0", "registry.example.com/bgbatch-cuda:0.1.0"}


@with_kubectl
@pytest.mark.skipif(os.geteuid() != 0, reason="a key is given to another user: needs root")
def test_each_secret_is_made_with_the_keys_that_its_readers_want(tmp_path: Path) -> None:
    subprocess.run(["sh", DEPLOY / "first-start.sh", tmp_path / "secrets"], check=True, capture_output=True)
    subprocess.run(["sh", DEPLOY / "certificates.sh", tmp_path / "ray"], check=True, capture_output=True)
    apply, *commands = block("kubectl apply").splitlines()
    assert "namespace.yaml" in apply
    script = "\n".join(f"{each} --dry-run=client -o yaml; echo ---" for each in commands)
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, check=True)
    made = {each["metadata"]["name"]: each["data"] for each in yaml.safe_load_all(done.stdout) if each}
    table = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", (BASE / "secrets.md").read_text(), re.M)
    later = {"BGBATCH_SMTP_URL", "BGBATCH_OIDC_CLIENT_SECRET"}  # where there are mail and sign-in
    assert {name for name, _ in table} == set(made)
    for name, keys in table:
        assert set(re.findall(r"`([^`]+)`", keys)) - later <= set(made[name]), name
    word = (tmp_path / "secrets" / "postgres_password").read_bytes().strip()
    assert b64decode(made["postgres-owner"]["password"]) == word
