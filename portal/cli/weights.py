"""weights import: a file of weights as people have it becomes one that bgbatch loads."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from portal.cli.place import require_known
from portal.cli.terminal import exit_codes, read_settings, show_fields
from schemas.errors import UserError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def weights() -> None:
    """Weights of networks that do not ship with bgbatch."""


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A .pth, .onnx or .safetensors file, in 32 or 16 bits.")],
    network: Annotated[str, typer.Option(help="Which network they are for: u2netp, u2net or isnet.")],
    to: Annotated[Path | None, typer.Option(help="Where to write; else the weights folder of bgbatch's home.")] = None,
) -> None:
    """Check a weights file against its network and convert it; then say how to use it."""
    with exit_codes():
        from workers.networks.importing import import_weights
        from workers.networks.registry import find_network

        known = find_network(network)
        file.open("rb").close()  # one that is not there is told as such
        target = to or read_settings().home / "weights" / f"{known.name}.safetensors"
        require_known(str(target))
        if target.exists() and not target.is_file():  # a device would be replaced by a file, for all programs
            raise UserError(f"{target} is no file. Name one with --to, such as weights/{known.name}.safetensors.")
        import_weights(file, known, target)
        place = shlex.quote(str(target.absolute()))  # in any folder's shell
        show_fields({"network": known.title, "use it with": f"BGBATCH_NETWORK={known.name} BGBATCH_WEIGHTS={place}"})
