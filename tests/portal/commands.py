"""A command as somebody types it, in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from portal.cli.app import app


def run(*words: str, code: int = 0) -> str:
    """What it prints, with what it says beside it if it fails. It must end with `code`."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout
