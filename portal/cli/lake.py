"""lake pull: what an ML team does with the lake. A row without a live permission never comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from portal.cli.terminal import exit_codes, get_ready, out, progress_bar, show_json
from schemas.ids import GrantId
from schemas.industries import Industry, parse_industry

app = typer.Typer(no_args_is_help=True, help="Training candidates: pull them, check copies of them.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def pull(
    industry: Annotated[str, typer.Option(help=f"One of: {', '.join(Industry)}.")],
    to: Annotated[Path, typer.Option(help="Folder for the copy.")],
    where: Annotated[str | None, typer.Option(help="Condition on labels: edge_uncertainty > 0.3")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the candidates of one industry, of live grants only."""
    with exit_codes():
        from consent.ledger import live_grants
        from lake.pull import pull as pull_copy
        from lake.query import Query

        query = Query(parse_industry(industry), where, limit)
        parts = get_ready()

        def ask() -> set[GrantId]:
            with parts.records.transaction() as connection:
                return {grant.grant_id for grant in live_grants(connection)}

        with progress_bar("Pulling", None) as bar:

            def show(done: int, of: int) -> None:
                bar.update(bar.task_ids[0], completed=done, total=of)

            pulled = pull_copy(parts.lake, parts.records, ask, query, to, parts.clock, show)
        if as_json:
            show_json({"rows": pulled.rows, "bytes": pulled.bytes, "files": pulled.files, "grants": pulled.grants})
        else:
            out.print(f"{pulled.rows} candidates of {len(pulled.grants)} grants in {to}")
