from __future__ import annotations

from tests.ending import end


def pytest_sessionfinish() -> None:
    """Here and not at the exit: a process of pytest-xdist that takes over 10 s there is killed, and they live on."""
    end()
