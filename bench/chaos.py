"""Many trials: a batch on several hosts, a kill -9 at a random moment, and a count of what came of it.

`python -m bench.chaos --trials 200 --photos 2000` writes its section of bench/RESULTS.md. Each seed is printed before
its trial; `--first-seed` repeats one. A photo lost or doubled ends it with an error, and nothing is written.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.results import write_section
from bench.tables import table
from tests.cluster.trials import MORE_VICTIMS, Outcome, World, trial


def main() -> None:
    """Run them, and say how many there were."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--trials", type=int, default=200)
    asked.add_argument("--photos", type=int, default=2000)
    asked.add_argument("--first-seed", type=int, default=1)
    asked.add_argument("--victims", nargs="*", default=list(MORE_VICTIMS))
    how = asked.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bgbatch-chaos-") as home:
        world = World(Path(home) / "world")
        try:
            for seed in range(how.first_seed, how.first_seed + how.trials):
                victim = how.victims[seed % len(how.victims)]
                print(f"seed {seed}: {victim}", flush=True)
                outcomes.append(trial(world, seed, victim, how.photos))
                print(f"  {outcomes[-1].runs} runs, {outcomes[-1].seconds:.0f} s {outcomes[-1].said}", flush=True)
        finally:
            world.end()
    write_section("Chaos", body(outcomes, how.first_seed))


def body(outcomes: list[Outcome], first_seed: int) -> list[str]:
    """What each victim cost."""
    by_victim: dict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        by_victim[each.victim].append(each)
    rows = []
    for victim, some in by_victim.items():
        said = sorted({code for each in some for code in each.said})
        by_itself = sum(each.runs == 1 for each in some)
        worst = max(each.runs for each in some)
        seconds = f"{median(each.seconds for each in some):.0f}"
        rows.append([victim, str(len(some)), str(by_itself), str(worst), ", ".join(said) or "nothing", seconds])
    last_seed = first_seed + len(outcomes) - 1
    return [
        f"{len(outcomes)} trials (seeds {first_seed} to {last_seed}) of {outcomes[0].photos} photos each, on a Ray "
        "head and three hosts, PostgreSQL and an S3 server, all real processes; the network sleeps 10 ms. In every "
        "trial each photo had its result and its own cutout, nothing was left to plan, and a day later nothing was "
        "left at all and one receipt said so.",
        "",
        *table(["killed", "trials", "ended by itself", "most runs", "what a run said", "median s"], rows),
    ]


if __name__ == "__main__":
    main()
