"""What a command calls itself in leases, and whether another one that has this machine's name is dead."""

from __future__ import annotations

import hashlib
import os
import socket

_OURS = "command"
_MOST_OF_HOST = 40  # letters of its name: with all of them, a holder might be longer than the records take


def holder_name() -> str:
    """What to call it here."""
    return f"{host_name()} {os.getpid()} {_OURS}"


def host_name() -> str:
    """What the machine is called; a long name is cut short, and told apart from others that begin like it."""
    name = socket.gethostname()
    if len(name) <= _MOST_OF_HOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]  # pods of one set differ in their last letters
    return f"{name[: _MOST_OF_HOST - 9]}-{digest}"


def is_gone(holder: str) -> bool:
    """Whether the holder was a command on this machine whose process is dead: nobody need wait for its lease to end."""
    host, _, rest = holder.partition(" ")
    pid, _, kind = rest.partition(" ")
    if host != host_name() or kind != _OURS or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, and is another user's
        pass
    return False
