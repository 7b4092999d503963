"""What the program offers: its commands and its pages."""

from __future__ import annotations

import ast

import pytest
import typer.main

from portal.cli.app import app
from tests.deploy.files import ROOT


@pytest.fixture(scope="session")
def commands() -> set[str]:
    """`cleanup`, `account link` and so on."""
    found = set()
    for name, command in typer.main.get_command(app).commands.items():
        found.add(name)
        found |= {f"{name} {each}" for each in getattr(command, "commands", {})}
    return found


@pytest.fixture(scope="session")
def routes() -> set[str]:
    """Paths of the portal's pages, read off their decorators."""
    found = set()
    for path in (ROOT / "portal" / "web").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_get = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
            if is_get and node.args and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found
