"""Ray as it is deployed asks for its token and speaks TLS: who has another token or authority, or none, stays out."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.hosts import PORT
from tests.cluster.network import HUB, apart, can_be_apart

pytestmark = pytest.mark.skipif(not can_be_apart(), reason="needs namespaces: root, or a kernel that lets anybody")
RAY = Path(sys.executable).with_name("ray")
TOKEN = secrets.token_hex(32)
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def inside() -> Iterator[list[str]]:
    """What a command line begins with to run in a network of its own. Ray turns 127.0.0.1 into an outer address."""
    hub = "ip link set lo up; ip link add hub type bridge; ip addr add $0/24 dev hub; ip link set hub up"
    holder = subprocess.Popen(apart(["sh", "-c", f"{hub}; echo ready; sleep infinity", HUB]), stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    yield ["nsenter", f"--target={holder.pid}", "--net"]
    holder.kill()
    holder.wait()


@contextmanager
def head(inside: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    """A head of a cluster at the hub."""
    home = tempfile.mkdtemp(prefix="bgb-", dir="/tmp")
    where = [f"--port={PORT}", f"--node-ip-address={HUB}", "--include-dashboard=false", f"--temp-dir={home}"]
    process = subprocess.Popen(
        [*inside, RAY, "start", "--head", "--block", "--num-cpus=1", *where, "--object-store-memory=80000000"],
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
        shutil.rmtree(home, ignore_errors=True)


def knock(inside: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask the cluster how many hosts it has, in a process of its own, which gives up after a while."""
    ask = f"import ray; ray.init('{HUB}:{PORT}', log_to_driver=False); print(len(ray.nodes()), 'hosts')"
    command = [*inside, "timeout", "-s", "KILL", environment.pop("patience", "120"), sys.executable, "-c", ask]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def certificate(folder: Path) -> dict[str, str]:
    """An authority of its own, and a certificate of it for this machine: the variables that name them."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=trials")
    openssl("req", *new, "-keyout", "tls.key", "-out", "tls.csr", "-subj", f"/CN={HUB}")
    (folder / "names").write_text(f"subjectAltName=IP:{HUB}")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *signed)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "tls.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "tls.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


def test_who_has_another_token_or_none_does_not_get_into_the_cluster(inside: list[str]) -> None:
    with head(inside, WITH_TOKEN):
        assert knock(inside, **WITH_TOKEN).stdout == "1 hosts\n"
        for stranger in (WITH_TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, {"RAY_AUTH_MODE": "disabled"}):
            refused = knock(inside, **stranger, patience="15")
            assert refused.returncode != 0
            assert "hosts" not in refused.stdout


@pytest.mark.slow
def test_who_does_not_speak_tls_by_our_authority_does_not_get_in_even_with_the_token(
    inside: list[str], tmp_path: Path
) -> None:
    ours, others = certificate(tmp_path / "ours"), certificate(tmp_path / "others")
    with head(inside, WITH_TOKEN | ours):
        assert knock(inside, **WITH_TOKEN, **ours).stdout == "1 hosts\n"
        for stranger in ({}, others):
            refused = knock(inside, **WITH_TOKEN, **stranger, patience="15")
            assert refused.returncode != 0
            assert "hosts" not in refused.stdout
