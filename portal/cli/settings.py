"""settings: what is in force, and what each is for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from portal.cli.terminal import AsJson, exit_codes, read_settings, say, show_json, tell
from store.settings import Settings

_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*:).*(?=@)|([?&]\w*password=)[^&#]+")


def settings(as_json: AsJson = False) -> None:
    """Show the settings in force and what each is for; BGBATCH_<NAME> in the environment sets it. Secrets are stars."""
    with exit_codes():
        in_force = {f"BGBATCH_{name.upper()}": _starred(value) for name, value in read_settings().model_dump().items()}
        if as_json:
            show_json(in_force)
        else:
            _show(in_force)
        unknown = sorted(name for name in os.environ if name.startswith("BGBATCH_") and name not in in_force)
        if unknown:
            tell(f"There are no such settings: {', '.join(unknown)}.")


def _show(in_force: Mapping[str, object]) -> None:
    width = max(map(len, in_force))
    for (name, value), field in zip(in_force.items(), Settings.model_fields.values(), strict=True):
        say(f"{name:<{width}}  {'' if value is None else value}", highlight=False)
        say(f"    {field.description}", highlight=False)


def _starred(value: object) -> object:
    """An address with stars for the password in it, if there is one; what is secret as a whole hides itself."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{'*' * 10}", value) if isinstance(value, str) else value
