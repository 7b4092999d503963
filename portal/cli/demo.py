"""demo: the whole of bgbatch in some minutes, on the photos that ship with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from flows.engine import prepare
from portal.cli.place import require_known
from portal.cli.terminal import exit_codes, out, say, show_table
from schemas.batch import Counts
from schemas.counting import so_many
from schemas.errors import UserError
from store.settings import Settings

_MARK = ".bgbatch-demo"


def demo(
    to: Annotated[Path, typer.Option(help="Folder for everything that the demo makes; emptied at the start.")] = Path(
        "demo-out"
    ),
) -> None:
    """Show the whole product on real photos: cutouts, consent, lake, withdrawal, and a day later the purge."""
    with exit_codes("Run the demo again: it begins anew."):  # its batches are in a home of its own
        require_known(str(to))
        folder = _empty(to.resolve())
        settings = Settings(home=folder / "home")
        prepare(settings)
        _play(folder, settings)


def _play(folder: Path, settings: Settings) -> None:
    from portal.demo.people import DEALER, MARKETPLACE
    from portal.demo.story import Story, portal_running

    story = Story(folder, settings, _watch)
    _chapter(
        "1. Two customers", "Harbor Motors sells vehicles. Corner Bazaar runs a marketplace. Nobody has been asked yet."
    )
    with portal_running(story.parts) as portal:
        visitor = story.open_accounts(portal)
        story.turn_on(visitor)
        say(f"Harbor Motors pressed *AI Training Data* on its account page, for {DEALER.industry.label.lower()}.")
        say("Corner Bazaar did nothing. That counts as no.")

        _chapter("2. Each sends a batch", "Prefect plans, warm Ray actors cut. The first start of both takes a while.")
        batches = [story.send(DEALER), story.send(MARKETPLACE)]
        rows = [
            (each.customer.name, each.counts.items, each.counts.done, each.counts.failed, each.counts.state)
            for each in batches
        ]
        show_table(("account", "photos", "done", "failed", "state"), rows)
        failures = [failure for each in batches for failure in each.failures]
        show_table(("photo", "code", "what happened"), failures)
        sheet = story.show(batches)
        say(f"Photos and cutouts side by side: {sheet}")

        _chapter("3. What may train a model", "The lake holds what a live grant allows, and nothing else.")
        for key in story.lake_files():
            say(f"  lake/{key}", highlight=False)
        pulled = story.pull("pulled")
        say(f"The ML team pulled {so_many(pulled, 'automotive candidate')}. Of Corner Bazaar's photos there is none.")

        _chapter(
            "4. Harbor Motors takes it back",
            "One press on the account page; unreadable at once, erased by the next reconcile.",
        )
        story.turn_off(visitor)
        say(f"A pull now gives {so_many(story.pull('pulled-later'), 'row')}.")
        say(f"From the copy pulled before, `bgbatch lake verify --erase` erased {story.take_back_from('pulled')}.")
        say(f"Reconcile erased {so_many(story.reconcile(), 'lake file')}, and left a receipt.")
        visitor.close()

    _chapter("5. A day passes", "On the passed-in clock. Then the cleanup flow runs, as it does every 10 minutes.")
    story.let_a_day_pass()
    say(f"Cleanup purged {so_many(story.clean_up(), 'batch')}.")
    gone = [
        (each.sequence, each.kind, each.subject, each.objects, each.bytes, each.remaining, each.hash[:12])
        for each in story.receipts()
    ]
    show_table(("receipt", "of a", "id", "objects", "bytes", "remaining", "sha256"), gone)
    left, lake = story.transient_objects(), len(story.lake_files())
    say(f"Objects left in the transient store: {left}. Files left in the lake: {lake}.")
    out.print(
        Panel(
            f"Photos and cutouts side by side   {sheet}\nCutouts as delivered              {folder / 'cutouts'}\n"
            f"Transient store, now empty        {settings.transient_root}\n"
            f"Lake, now empty                   {settings.lake_root}",
            title="Where to look",
        )
    )


def _watch(counts: Counts) -> None:
    say(f"  {counts.done + counts.failed:,} of {so_many(counts.items, 'photo')}", highlight=False)


def _chapter(title: str, sentence: str) -> None:
    out.print()
    out.print(Rule(Text(title, style="bold"), align="left"))
    out.print(sentence, style="dim")


def _empty(folder: Path) -> Path:
    """A fresh folder; only one that an earlier demo made is emptied."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise UserError("That folder holds something else than an earlier demo. Give another one with --to.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder
