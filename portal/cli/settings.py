"""settings: what is in force, and what each is for."""

from __future__ import annotations

import os
import re

from portal.cli.terminal import exit_codes, read_settings, say, tell
from store.settings import Settings

_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*:).*(?=@)|([?&]\w*password=)[^&#]+")


def settings() -> None:
    """Show the settings in force and what each is for; BGBATCH_<NAME> in the environment sets it. Secrets are stars."""
    with exit_codes():
        in_force = read_settings().model_dump()
        width = max(map(len, in_force))
        for name, value in in_force.items():
            shown = "" if value is None else _starred(value)
            say(f"BGBATCH_{name.upper():<{width}}  {shown}", highlight=False)
            say(f"    {Settings.model_fields[name].description}", highlight=False)
        known = {f"BGBATCH_{name.upper()}" for name in in_force}
        unknown = sorted(name for name in os.environ if name.startswith("BGBATCH_") and name not in known)
        if unknown:
            tell(f"There are no such settings: {', '.join(unknown)}.")


def _starred(value: object) -> object:
    """An address with stars for the password in it, if there is one; what is secret as a whole hides itself."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{'*' * 10}", value) if isinstance(value, str) else value
