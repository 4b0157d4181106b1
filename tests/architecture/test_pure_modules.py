"""What calls itself pure is listed in the import contract, and neither opens a file nor asks the clock."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import Any

PURE = re.compile(r"\bPure\.$")
# Reading the disk, the clock or chance by a method of a value that may otherwise be imported.
METHODS = frozenset(
    """
    read_bytes read_text write_bytes write_text exists is_file is_dir iterdir glob rglob stat lstat mkdir
    unlink rmdir touch chmod rename symlink_to resolve expanduser cwd home utcnow today uuid1 uuid4
    """.split()  # noqa: SIM905 - a list of words reads better than quotes
)
NAMES = frozenset({"open", "print", "input", "exec", "eval"})


def _is_pure(module: Any) -> bool:
    return PURE.search(" ".join(module.docstring.split("\n\n")[0].split())) is not None


def test_the_contract_lists_exactly_the_modules_that_call_themselves_pure(
    product: list[Any], root: Path
) -> None:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    listed = setup["importlinter:contract:pure"]["source_modules"].split()
    assert listed == sorted(m.dotted for m in product if _is_pure(m))


def test_pure_modules_touch_neither_disk_nor_clock(product: list[Any]) -> None:
    found = [
        f"{module.where}:{node.lineno} {ast.unparse(node.func)}()"
        for module in product
        if _is_pure(module)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _reaches_out(node.func)
    ]
    assert not found, "\n".join(found)


def _reaches_out(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in NAMES
    if not isinstance(function, ast.Attribute):
        return False
    if function.attr == "now":
        return ast.unparse(function.value) in {"datetime", "datetime.datetime"}
    return function.attr in METHODS


def test_pure_modules_keep_no_state_between_calls(product: list[Any]) -> None:
    found = [
        f"{module.where}:{node.lineno}"
        for module in product
        if _is_pure(module)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global | ast.Nonlocal)
    ]
    assert not found
