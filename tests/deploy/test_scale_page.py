"""docs/scale.md is what its simulation says, and the simulation behaves."""

from __future__ import annotations

from bench.night import HOURS, PAGE, WORKS, enough_for, hours_with, machines_for, page


def test_the_page_is_what_the_simulation_says() -> None:
    assert PAGE.read_text() == page()


def test_losses_and_slow_starts_cost_something_and_more_machines_help() -> None:
    for work in WORKS:
        machines = machines_for(work)[1]
        enough, hours, again = enough_for(work)
        assert machines <= enough
        assert hours <= HOURS
        assert hours_with(work, 2 * enough)[0] < hours
        assert again >= 0
