"""The compose file's Ray and a driver beside it, in the namespaces that compose would make: one network, two /tmp."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.network import apart, can_be_apart
from tests.deploy.files import COMPOSE

pytestmark = pytest.mark.skipif(not can_be_apart(), reason="needs namespaces: root, or a kernel that lets anybody")
RAY, WORK = COMPOSE["services"]["ray"], COMPOSE["services"]["work"]
DRIVER = """
import json, sys, ray
ray.init(sys.argv[1], log_to_driver=False)
print(json.dumps({"answer": ray.get(ray.remote(lambda: 7).remote()), "at": ray.nodes()[0]["NodeManagerAddress"]}))
"""
PLACE = r"""
set -e
ip link set lo up
ip link add outside type bridge; ip addr add 172.30.0.3/16 dev outside; ip link set outside up
ip route add default via 172.30.0.1  # by its way out Ray finds an address that others reach
mkdir "$1/ray"; mount -t tmpfs ray "$1/ray"
contained() {
    own_tmp='mount --bind "$0/ray" /mnt; mount --bind "$PROGRAMS" /media'
    own_tmp="$own_tmp; mount -t tmpfs own /tmp; mkdir /tmp/ray; mount --bind /mnt /tmp/ray"
    own_tmp="$own_tmp; mkdir -p \"\$PROGRAMS\"; mount --bind /media \"\$PROGRAMS\""  # they may lie under /tmp
    unshare --mount sh -c "$own_tmp; exec \"\$@\"" "$@"
}
contained "$1" sh -c "$ENTRYPOINT" ray $2 > "$1/head" 2>&1 &
for _ in $(seq 1200); do grep -q "runtime started" "$1/head" && break; sleep 0.1; done
ss -ltnH | awk '{print $4}' > "$1/listening"
contained "$1" $3
contained "$1" "$4" -c "$5" "$6"
"""


def test_the_driver_beside_it_joins_and_nobody_on_another_network_can(tmp_path: Path) -> None:
    assert RAY["environment"].items() <= WORK["environment"].items()
    assert WORK["network_mode"] == WORK["ipc"] == WORK["pid"] == "service:ray"
    programs = Path(sys.executable).parent
    small = ["--num-cpus=1", "--object-store-memory=80000000"]
    head = shlex.join([*RAY["command"], *small])
    check = shlex.join([str(programs / "ray"), *WORK["healthcheck"]["test"][2:]])
    token = RAY["environment"] | {"RAY_AUTH_TOKEN": secrets.token_hex(32), "PROGRAMS": sys.prefix}
    token |= {"ENTRYPOINT": RAY["entrypoint"][2].replace("$$", "$"), "PATH": f"{programs}:{os.environ['PATH']}"}
    address = WORK["environment"]["BGBATCH_RAY_ADDRESS"]
    outside = {name: value for name, value in os.environ.items() if name != "TMPDIR"}  # which is not there, inside
    program = ["sh", "-c", PLACE, "sh", str(tmp_path), head, check, sys.executable, DRIVER, address]
    done = subprocess.run(
        apart(["unshare", "--ipc", *program]), env=outside | token, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + (tmp_path / "head").read_text()[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"answer": 7, "at": "127.0.0.1"}
    listening = (tmp_path / "listening").read_text().split()
    assert any(each.endswith(":6379") for each in listening)
    assert all("127.0.0.1" in each for each in listening), "others on the machine's networks reach Ray"
