"""serve: the portal on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from portal.cli.terminal import exit_codes, get_ready


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Serve the portal: the account page with its *AI Training Data* button. Ctrl-C ends it."""
    with exit_codes():
        parts = get_ready()
        import os

        import uvicorn

        from portal.web.app import create_app

        app = create_app(parts.settings, parts.records, parts.transient, parts.clock, os.urandom)
        # No access log: a request line may hold a sign-in token.
        uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning")
