"""The exception tree is drawn whole where it lives, with every branch under its parent."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from medorchestra import errors

SOURCES = Path(errors.__file__).parent
_BRANCH = re.compile(r"^(?P<bars>[│ ]*)(?:[├└]── )?(?P<name>\w+Error) ")


def drawn():
    """Class -> its parent, as the docstring draws them; the root has none."""
    found, above = {}, []
    for line in (errors.__doc__ or "").splitlines():
        branch = _BRANCH.match(line)
        if branch:
            depth = len(branch["bars"]) // 4 + ("── " in line)
            above = [*above[:depth], branch["name"]]
            found[branch["name"]] = above[-2] if depth else None
    return found


def written():
    """Class -> its parent, as the source has them: all that come from `MedorchestraError`, wherever they stand."""
    classes = {
        node.name: bases[0]
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and (bases := [base.id for base in node.bases if isinstance(base, ast.Name)])
    }
    found = {"MedorchestraError": None}
    while more := {name: base for name, base in classes.items() if name not in found and base in found}:
        found |= more
    return found


def test_every_error_is_drawn_under_its_parent():
    assert drawn() == written()
    assert drawn()["ServerRefusedError"] == "ServerFailedError"
