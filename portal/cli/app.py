"""The root of the command line. Subjects with several verbs are groups, the rest are plain commands."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from portal.cli import account, consent, lake, place, proofs, schedule, status, submit, upkeep, webhook, weights
from portal.cli.demo import demo
from portal.cli.download import download
from portal.cli.serve import serve
from portal.cli.settings import settings
from portal.cli.stopping import INTERRUPTED
from portal.cli.terminal import CALLERS_MISTAKE, quiet_libraries, require_no_gap, say, say_file_fault, tell
from portal.cli.work import work

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold customers' names
    help=(
        "Remove the backgrounds of whole photo catalogs. Nothing is kept over 24 hours, and nothing trains a model, "
        "unless the customer turned on AI Training Data on the account page."
    ),
)


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"bgbatch {version('bgbatch')}")
        raise typer.Exit


@app.callback()
def root(
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Commands follow; the help above is the app's own."""


_COMMANDS = {
    "Photos": (submit.submit, submit.run, status.status, download, submit.retry, status.cancel),
    "Proof": (proofs.receipts, proofs.certificate, proofs.audit),
    "Running it": (demo, serve, work, upkeep.upkeep, upkeep.cleanup, upkeep.reconcile, upkeep.canary, settings),
}
_GROUPS = {
    "Running it": {"weights": weights.app},
    "Customers": {"account": account.app, "consent": consent.app, "webhook": webhook.app},
    "Every night": {"schedule": schedule.app, "place": place.app},
    "Training": {"lake": lake.app},
}
"""What `--help` shows together."""

for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for panel, groups in _GROUPS.items():
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=panel)


def main() -> None:
    """Run the command line."""
    quiet_libraries()
    require_no_gap(sys.argv)
    try:
        app()
    except KeyboardInterrupt:  # while the commands are put together; once one runs, it says so itself
        tell("Stopped.")
        sys.exit(INTERRUPTED)
    except OSError as fault:  # likewise: help that is written to a full disk
        say_file_fault(fault)
        sys.exit(CALLERS_MISTAKE)
