"""Ray as it is deployed asks for its token and speaks TLS: who has another token or authority, or none, stays out."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.hosts import PORT
from tests.cluster.network import HUB, apart, can_be_apart
from tests.deploy.files import called

pytestmark = pytest.mark.skipif(not can_be_apart(), reason="needs namespaces: root, or a kernel that lets anybody")
RAY = Path(sys.executable).with_name("ray")
AWAY = "10.99.0.2"
TOKEN = secrets.token_hex(32)
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def inside() -> Iterator[list[str]]:
    """What a command line begins with to run in a network of its own. Ray turns 127.0.0.1 into an outer address."""
    hub = "ip link set lo up; ip link add hub type bridge; ip addr add $0/24 dev hub; ip link set hub up"
    hub += "; ip addr add $1/24 dev hub; echo ready; sleep infinity"
    holder = subprocess.Popen(apart(["sh", "-c", hub, HUB, AWAY]), stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    yield ["nsenter", f"--target={holder.pid}", "--net"]
    holder.kill()
    holder.wait()


@contextmanager
def head(inside: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    """A head of a cluster at the hub."""
    home = tempfile.mkdtemp(prefix="bgb-", dir="/tmp")
    try:
        where = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={home}"]
        with node(inside, environment, HUB, *where):
            yield
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def node(inside: Sequence[str], environment: Mapping[str, str], address: str, *where: str) -> Iterator[None]:
    """A node of the cluster at this address."""
    small = ["--num-cpus=1", "--object-store-memory=80000000"]
    process = subprocess.Popen(
        [*inside, RAY, "start", "--block", f"--node-ip-address={address}", *small, *where],
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        assert any(b"Ray runtime started" in line for line in process.stdout)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


ASK = f"""
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init('{HUB}:{PORT}', log_to_driver=False)
hosts = [each['NodeID'] for each in ray.nodes() if each['Alive']]
asked = ray.remote(lambda: ray.get_runtime_context().get_node_id())
print(len({{*ray.get([asked.options(scheduling_strategy=On(each, soft=False)).remote() for each in hosts])}}), 'hosts')
"""

JOIN = f"""
import sys
from schemas.errors import WorkersLost
from store.settings import Settings
from workers.placement import connect
try:
    connect(Settings(home=sys.argv[1], ray_address='{HUB}:{PORT}'))
except WorkersLost as fault:
    print(fault)
"""


def knock(inside: Sequence[str], friend: Mapping[str, str], *strangers: Mapping[str, str]) -> tuple[str, list[str]]:
    """Ask each host of the cluster for a word, in a process each; what the friend hears, and the strangers.

    They knock before the friend, and once that has been heard wait as long again: on a busy machine everybody is slow.
    """
    began = time.monotonic()
    asked = [_asking(inside, who) for who in (*strangers, friend)]
    heard = asked.pop().communicate(timeout=600)[0]
    until = time.monotonic() + (time.monotonic() - began)
    for each in asked:
        with suppress(subprocess.TimeoutExpired):
            each.wait(until - time.monotonic())
        each.kill()
    return heard, [each.communicate()[0] for each in asked]


def _asking(inside: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*inside, sys.executable, "-c", ASK], env=os.environ | environment, text=True, **quiet)  # type: ignore[call-overload]


def certificate(folder: Path, address: str = HUB, **environment: str) -> dict[str, str]:
    """What a pod with this address makes, by an authority that the folder gets first: the variables that name it."""
    authority, own = folder / "authority", folder / address
    if not authority.exists():
        authority.mkdir(parents=True)
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=trials"]
        subprocess.run([*new, "-keyout", "tls.key", "-out", "tls.crt"], cwd=authority, check=True, capture_output=True)
    own.mkdir()
    places = {"/etc/ray-tls": str(own), "/etc/ray-authority": str(authority)}
    script, security = called("ConfigMap", "ray-certificate")["data"]["make.sh"], called("ConfigMap", "ray-security")
    for place, here in places.items():
        script = script.replace(place, here)
    pod = {"POD_IP": address, "PATH": os.environ["PATH"]} | environment
    subprocess.run(["sh", "-c", script], env=pod, check=True, capture_output=True)
    files = {name: value for name, value in security["data"].items() if "TLS" in name}
    return {name: value.replace("/etc/ray-tls", str(own)) for name, value in files.items()}


def test_who_has_another_token_or_none_does_not_get_into_the_cluster(inside: list[str]) -> None:
    strangers = WITH_TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, {"RAY_AUTH_MODE": "disabled"}
    with head(inside, WITH_TOKEN):
        assert knock(inside, WITH_TOKEN, *strangers) == ("1 hosts\n", ["", ""])


def test_a_program_of_ours_with_another_token_is_told_what_to_give_it(inside: list[str], tmp_path: Path) -> None:
    stranger = os.environ | WITH_TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    asked = [*inside, sys.executable, "-c", JOIN, str(tmp_path)]
    with head(inside, WITH_TOKEN):
        said = subprocess.run(asked, env=stranger, capture_output=True, text=True, timeout=600)
    assert said.stdout.startswith("The Ray cluster at BGBATCH_RAY_ADDRESS answers, and lets nobody in"), said.stderr
    assert "RAY_AUTH_TOKEN" in said.stdout


def test_who_does_not_speak_tls_by_our_authority_does_not_get_in_even_with_the_token(
    inside: list[str], tmp_path: Path
) -> None:
    """With certificates as pods make them, of the authority and for their own address: with another's a node dies."""
    head_too = {"HEAD": "bgbatch-head-svc", "FQ_RAY_IP": "bgbatch-head-svc.bgbatch.svc.cluster.local"}
    ours, others = certificate(tmp_path / "ours", **head_too), certificate(tmp_path / "others")
    away, join = certificate(tmp_path / "ours", AWAY), f"--address={HUB}:{PORT}"
    with head(inside, WITH_TOKEN | ours), node(inside, WITH_TOKEN | away, AWAY, join):
        heard = knock(inside, WITH_TOKEN | ours, WITH_TOKEN, WITH_TOKEN | others)
        assert heard == ("2 hosts\n", ["", ""])
