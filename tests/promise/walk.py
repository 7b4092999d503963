"""A walk through the world: seeded, printed, replayable. `python -m tests.promise.walk --seeds 10000`."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from tests.promise.trouble import Kind
from tests.promise.world import INDUSTRIES, World

_LENGTH = 30


def walk(seed: int, home: Path, tell: Callable[[str], None] = lambda line: None) -> None:
    """One life of the world, then two calm days. Raises `Broken` when the promise is broken."""
    world = World(seed, home)
    choose = Random(f"walk {seed}")
    with world.its_clock():
        if choose.random() < 0.7:
            world.press_button(0, INDUSTRIES[0])
        for _ in range(choose.randrange(8, _LENGTH)):
            name, arguments = choose.choices(*_choices(choose))[0]
            tell(f"{world.now:%d %H:%M} {name}{arguments}")
            getattr(world, name)(*arguments)
            world.check()
        world.check_end()


def _choices(choose: Random) -> tuple[list[tuple[str, tuple[object, ...]]], list[int]]:
    """What may happen next, and how often it does."""
    owner, industry = choose.choice([0, 0, 0, 1]), choose.choice([*INDUSTRIES, INDUSTRIES[0], INDUSTRIES[0]])
    weighted: list[tuple[int, str, tuple[object, ...]]] = [
        (6, "submit", (owner, choose.choice([industry, industry, None]), choose.randrange(1, 4))),
        (6, "submit_and_process", (owner, industry, choose.randrange(1, 4))),
        (4, "spoil_purge", (choose.choice(list(Kind)), choose.randrange(1, 12))),
        (6, "process", (choose.choice([0, 0, 1, 2]),)),
        (6, "press_button", (owner, industry)),
        (3, "withdraw", (owner, industry)),
        (2, "change_mind_twice", (owner, industry)),
        (3, "write_late", (choose.randrange(4),)),
        (1, "stray", ()),
        (1, "download", (choose.randrange(3),)),
        (2, "set_clock", (choose.choice(["portal", "worker", "cleaner"]), choose.randrange(-10, 11))),
        (1, "lose_database", ()),
        (6, "plan_trouble", (choose.choice(list(Kind)), choose.randrange(1, 25))),
        (2, "clean_up", ()),
        (1, "reconcile", ()),
        (6, "advance", (choose.choice([1, 1, 3, 6, 60, 130, 138, 140, 143]),)),
    ]
    return [(name, arguments) for _, name, arguments in weighted], [weight for weight, _, _ in weighted]


def _walk_alone(seed: int) -> tuple[int, str]:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="bgbatch-promise-") as home:
        try:
            walk(seed, Path(home))
        except Exception as error:  # noqa: BLE001  # whatever it is, the seed that found it must be said
            return seed, f"{type(error).__name__}: {error}"
    return seed, ""


def main() -> int:
    """Walk with many seeds; print those that broke something, and how to replay them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many walks")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--replay", type=int, help="walk with this seed alone, and tell each step")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if asked.replay is not None:
        with tempfile.TemporaryDirectory(prefix="bgbatch-promise-") as home:
            walk(asked.replay, Path(home), print)
        return 0
    seeds, started = range(asked.first, asked.first + asked.seeds), time.monotonic()
    broken = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for seed, fault in pool.map(_walk_alone, seeds, chunksize=20):
            if fault:
                broken.append(seed)
                print(f"seed {seed}: {fault}\n  replay: python -m tests.promise.walk --replay {seed}", flush=True)  # noqa: T201
            if seed % 100 == 99:
                print(f"seeds {asked.first} to {seed}: {len(broken)} broken", flush=True)  # noqa: T201
    seconds = time.monotonic() - started
    print(f"seeds {seeds.start} to {seeds.stop - 1}: {len(broken)} broken promises ({seconds:.0f} s)")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
