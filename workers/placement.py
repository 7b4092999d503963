"""Where actors go: the cluster that is joined, what each actor takes of it, and under which name others find it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import ray
import ray._private.ray_constants
import ray._private.services
import ray._private.utils
import ray._private.worker
from ray.actor import ActorHandle

from schemas.errors import DeviceAbsent, WorkersLost
from store.settings import NOT_FOR_WORKERS, Settings
from workers.identity import own_code, settings_digest
from workers.limits import calls_at_once, places_in

NAMESPACE = "bgbatch"
_KIND = "segmenter-"
_KNOCK_SECONDS = 5


def connect(settings: Settings, cpus: int | None = None) -> None:
    """Join the cluster that the settings name, or start Ray on this machine; it ends with this process. Idempotent.

    A process that its cluster has lost joins again. `cpus`: how many this machine should pass for; None: as many as it
    has. Raises `WorkersLost` where no cluster answers, or lets this process in, or Ray does not start here.
    """
    if ray.is_initialized():
        if not is_cut_off():
            return
        ray.shutdown()
    quiet: Any = {"log_to_driver": False, "configure_logging": False}
    if settings.ray_address:
        _require_answer(settings.ray_address)
        try:
            with _sigterm_left_alone(), _nameless():
                ray.init(address=settings.ray_address, namespace=NAMESPACE, **quiet)
        except ConnectionError:
            raise WorkersLost(
                "The Ray cluster at BGBATCH_RAY_ADDRESS answers, and lets nobody in from here. Where it asks for a "
                "token, give this process RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN; where it speaks TLS, Ray's "
                "settings for that."
            ) from None
    else:
        # "local": never another cluster that happens to run here. Images do not pass through the object store.
        # Ray turns 127.0.0.1 into the machine's outer address and listens on all of them; here nobody else should call.
        here = patch.object(ray._private.services, "resolve_ip_for_localhost", lambda host: host)
        try:
            with here, _sigterm_left_alone(), _nameless(), _without_passwords():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    _node_ip_address="127.0.0.1",
                    namespace=NAMESPACE,
                    object_store_memory=80 * 2**20,
                    include_dashboard=False,
                    **quiet,
                )
        except (RuntimeError, OSError) as fault:
            raise WorkersLost(
                f"Ray did not start on this machine ({type(fault).__name__}). Look whether there is room where it "
                "keeps its sessions, in RAY_TMPDIR or /tmp, and whether that path is a short one."
            ) from None


@contextmanager
def _sigterm_left_alone() -> Iterator[None]:
    """Ray would have it end this process wherever that is, and three seconds later, with a dump, once more."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(ray._private.ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True):
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _nameless() -> Any:
    """Ray would tell its cluster this process's whole command, which names customers' files and need not be UTF-8."""
    return patch.object(ray._private.utils, "get_entrypoint_name", lambda: NAMESPACE)


def _without_passwords() -> Any:
    """Ray would hand our environment on to each worker, which a hostile photo may take over."""

    def start(*command: Any, env: Mapping[str, str], **how: Any) -> Any:
        given = {name: value for name, value in env.items() if name.upper() not in NOT_FOR_WORKERS}
        return started(*command, env=given, **how)

    started: Any = ray._private.services.ConsolePopen
    return patch.object(ray._private.services, "ConsolePopen", start)


def _require_answer(address: str) -> None:
    """Ray itself would wait for a quarter of an hour, whatever it is asked meanwhile, before it says so."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except OSError:
        raise WorkersLost(
            "No Ray cluster answers at BGBATCH_RAY_ADDRESS. Look whether its head runs and can be reached from here."
        ) from None


def is_cut_off() -> bool:
    """Whether the node of Ray by which this process came in is gone, or no member of the cluster any more.

    Ray itself waits on: calls of such a process never end, even where another cluster has the same address by now.
    """
    if not ray.is_initialized():
        return False
    node: Any = ray._private.worker.global_worker.node
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.connect(node.raylet_socket_name)
        except OSError:
            return True
    own = ray.get_runtime_context().get_node_id()
    return not any(each["Alive"] and each["NodeID"] == own for each in ray.nodes())  # type: ignore[no-untyped-call]


def require_joined() -> None:
    """Raises `WorkersLost` when this process is cut off."""
    if is_cut_off():
        raise WorkersLost(
            "The Ray cluster that this process had joined is gone. What is done stays done: run it again."
        )


def require_device(settings: Settings) -> None:
    """Raises `DeviceAbsent` where an actor would wait for a GPU that never comes; on a cluster a node may yet join."""
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if _is_on_gpu(settings) and not settings.ray_address and not has.get("GPU"):
        raise DeviceAbsent(
            f"The device {settings.device} was asked for, and Ray finds no GPU on this machine. Install its driver, "
            "join a cluster that has one (BGBATCH_RAY_ADDRESS), or set BGBATCH_DEVICE=cpu."
        )


def places(settings: Settings) -> int:
    """How many actors the settings ask for, or fit into the cluster as it is now."""
    if settings.actors:
        return settings.actors
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return places_in(has.get("CPU", 0), has.get("GPU", 0), settings.gpu_share if _is_on_gpu(settings) else None)


def start(kind: type, settings: Settings, place: int) -> ActorHandle[Any]:
    """The actor of this place. On a cluster it is named and detached: if it is there already, it is met, not made.

    One that finds no room waits in Ray's queue, where an autoscaler sees what is asked for.
    """
    on_gpu = _is_on_gpu(settings)
    options: dict[str, object] = {
        "num_cpus": 0 if on_gpu else 1,
        "num_gpus": settings.gpu_share if on_gpu else 0,
        "max_restarts": 0,  # the pool starts a new one itself, so that it knows which call was lost
        "max_task_retries": 0,
        "max_concurrency": calls_at_once(settings.device),
    }
    if settings.ray_address:
        named = {"name": _name(settings, place), "get_if_exists": True, "lifetime": "detached", "namespace": NAMESPACE}
        options |= named
    remote: Any = ray.remote(kind)
    handle: ActorHandle[Any] = remote.options(**options).remote(settings.without_secrets())
    return handle


def retire_others(settings: Settings) -> None:
    """Let actors of other code or settings leave once they are idle: after an upgrade they hold what ours need."""
    own = _name(settings, 0).removesuffix("0")
    for name in ray.util.list_named_actors():
        if name.startswith(_KIND) and not name.startswith(own):
            with suppress(ValueError, AttributeError):  # it has just gone, or is too old to know
                ray.get_actor(name, namespace=NAMESPACE).retire.remote()


def stop(actor: ActorHandle[Any], settings: Settings, place: int) -> None:
    """End it now, and give its name back."""
    ray.kill(actor)
    if settings.ray_address:
        with suppress(ValueError):  # raised once nobody has that name
            for _ in range(50):
                ray.get_actor(_name(settings, place), namespace=NAMESPACE)
                time.sleep(0.1)


def _name(settings: Settings, place: int) -> str:
    """Actors of other code or settings are other actors: a driver meets none that was started by something else."""
    return f"{_KIND}{own_code()}-{settings_digest(settings)}-{place}"


def _is_on_gpu(settings: Settings) -> bool:
    return settings.device.startswith("cuda")
