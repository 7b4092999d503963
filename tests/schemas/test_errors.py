"""Every error stands in `schemas.errors`, with a stable code of its own: programs depend on them."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from pathlib import Path

from schemas import errors

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "store", "consent", "lake", "workers", "flows", "portal")
KINDS = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}


def test_each_has_a_code_of_its_own_and_a_sentence() -> None:
    assert len(KINDS) > 40
    assert Counter(kind.code for kind in KINDS.values()).most_common(1)[0][1] == 1
    assert all(kind.__doc__ and kind.__doc__.partition("\n")[0].endswith(".") for kind in KINDS.values())


def test_none_stands_elsewhere() -> None:
    for path in (each for package in PACKAGES for each in (ROOT / package).rglob("*.py")):
        if path != ROOT / "schemas" / "errors.py":
            classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
            bases = {ast.unparse(base).rpartition(".")[2] for each in classes for base in each.bases}
            assert not bases & KINDS.keys(), path
