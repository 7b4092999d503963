"""A real Ceph object gateway of the tests' own: one monitor, one store in memory, on this machine alone.

It has what the promise is about and quick servers lack: versions, delete markers, unfinished uploads, bucket policies,
Object Lock, lifecycle rules that are enforced (a "day" takes five seconds here), links that expire.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import uuid
from functools import cache
from pathlib import Path

from tests.ending import TIED, at_end
from tests.ports import free_port, wait_for

KEY, SECRET = "AKTESTS", "a-secret-of-the-tests-alone"
OTHER_KEY, OTHER_SECRET = "AKOTHER", "another-secret-of-the-tests"
_numbers = itertools.count(1)

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port2}/0,v1:127.0.0.1:{port1}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {home}/keyring
run dir = {home}/run
admin socket = {home}/run/$name.asok
pid file =
log file = {home}/log/$name.log
crash dir = {home}/log
debug rgw = 0
debug ms = 0
paxos propose interval = 0.05
paxos min wait = 0.01
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd pool default crush rule = 0
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon data avail crit = 1
mon data avail warn = 1
mon cluster log file = {home}/log/cluster.log
[mon]
mon data = {home}/mon
[mon.a]
host = localhost
[osd]
osd data = {home}/osd
osd objectstore = memstore
osd class dir = {classes}
memstore device bytes = 4294967296
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw enable apis = s3, admin
rgw lc debug interval = 5
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw dns name = 127.0.0.1
"""


@cache
def server() -> str:
    """The gateway's address. It stops when the tests end."""
    if shutil.which("radosgw") is None:
        raise RuntimeError("Ceph's gateway is not installed: see deploy/test-packages.txt")
    home = Path(tempfile.mkdtemp(prefix="bgbatch-ceph-", dir="/tmp"))  # socket paths must be short
    for name in ("mon", "osd", "run", "log"):
        (home / name).mkdir()
    port, port1, port2, fsid = free_port(), free_port(), free_port(), str(uuid.uuid4())
    conf = home / "ceph.conf"
    classes = next(Path("/usr/lib").glob("*/rados-classes"))  # Debian 13 has built a path in that is not whole
    conf.write_text(_CONF.format(home=home, fsid=fsid, classes=classes, port=port, port1=port1, port2=port2))
    environment = os.environ | {"CEPH_CONF": str(conf)}
    log = (home / "log/start").open("w")

    def do(*command: object) -> None:
        subprocess.run([str(each) for each in command], check=True, env=environment, stdout=log, stderr=log)

    processes: list[subprocess.Popen[bytes]] = []

    def spawn(*command: str) -> None:
        processes.append(subprocess.Popen([*TIED, *command, "-f"], env=environment, stdout=log, stderr=log))

    def stop() -> None:
        for process in reversed(processes):
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)

    at_end(stop)
    try:
        keyring = home / "keyring"
        do("ceph-authtool", "-C", keyring, "-g", "-n", "mon.", "--cap", "mon", "allow *")
        for name in ("client.admin", "client.rgw.a", "osd.0"):
            do("ceph-authtool", keyring, "-g", "-n", name, "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        place = f"[v2:127.0.0.1:{port2}/0,v1:127.0.0.1:{port1}/0]"
        do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", place, home / "monmap")
        do("ceph-mon", "--mkfs", "-i", "a", "--monmap", home / "monmap", "--keyring", keyring)
        spawn("ceph-mon", "-i", "a")
        wait_for(port2, processes[-1])
        osd = str(uuid.uuid4())
        do("ceph", "--connect-timeout", "300", "osd", "new", osd)
        do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        spawn("ceph-osd", "-i", "0")
        spawn("radosgw", "-n", "client.rgw.a")
        wait_for(port, processes[-1])
        for name, key, secret in (("tests", KEY, SECRET), ("other", OTHER_KEY, OTHER_SECRET)):
            do("radosgw-admin", "user", "create", "--uid", name, "--display-name", name)
            do("radosgw-admin", "key", "create", "--uid", name, "--access-key", key, "--secret-key", secret)
    except BaseException:  # each test that needs it tries once more, beside what would stay
        stop()
        raise
    return f"http://127.0.0.1:{port}"


def new_bucket_name() -> str:
    """A name that no bucket has yet."""
    return f"bucket{next(_numbers)}"
