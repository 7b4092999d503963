"""bench/RESULTS.md: a bench that is run again replaces its own figures, and nothing that a person wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import results


def test_a_bench_that_is_run_again_replaces_its_figures_and_keeps_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    results.write_section("First", ["old figure"])
    results.write_section("Second", ["another's figure"])
    text = results.RESULTS.read_text().replace("old figure\n", "old figure\n\n### Notes\n\nMeasured at night.\n", 1)
    results.RESULTS.write_text(text)
    assert results.section("First") == ["old figure"]
    results.write_section("First", ["new figure"])
    results.write_section("First", ["new figure"])
    text = results.RESULTS.read_text()
    assert "old figure" not in text
    assert text.count("new figure") == text.count("Measured at night.") == 1
    assert text.index("new figure") < text.index("Measured at night.") < text.index("## Second")
    assert results.section("Second") == ["another's figure"]
