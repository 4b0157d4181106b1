"""Merge the modules of the offline verifier into one file that needs only `cryptography`.

    python scripts/verify/merge_verifier.py > lotabots_verify.py

The text of the modules is kept, comments included, in the order in which they need each other, under one
block of imports. What one file cannot say the same way is refused: a name that two modules give to
different things or that hides a builtin, a module under an alias, an import that is not at the top.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "lotabotsd" / "attestation" / "verify"
FOREIGN = "cryptography"  # the only package that may be imported beside the standard library
DOOR, ENTRY = "__init__", "__main__"
ORIGIN = "# Made from lotabotsd/attestation/verify/*.py by scripts/verify: change it there, not here."


@dataclass
class Module:
    """One module taken apart. Names map to what they are imported from, or are set by the module itself."""

    name: str
    docstring: str
    code: str  # what follows the imports
    plain: set[str] = field(default_factory=set)  # import x
    foreign: dict[str, str] = field(default_factory=dict)  # from x import name
    inner: dict[str, str] = field(default_factory=dict)  # from .x import name
    own: set[str] = field(default_factory=set)


def merge(folder: Path) -> str:
    """The one file's text; the same text for the same modules. Raises ValueError for what is refused."""
    modules = {path.stem: _take_apart(path.stem, path.read_text("utf-8")) for path in folder.glob("*.py")}
    ordered = list(_needed(ENTRY, modules, ()))
    left_out = set(modules) - {module.name for module in ordered} - {DOOR}
    if left_out:
        raise ValueError(f"nothing imports {', '.join(sorted(left_out))}")
    if modules[DOOR].own != {"__all__"}:
        raise ValueError(f"{DOOR} does more than name what the package gives")
    _refuse_clashes(ordered)
    for module in (modules[DOOR], *ordered):
        for name, home in module.inner.items():
            if name not in modules[home].own:
                raise ValueError(f"{module.name} takes {name} from {home}, which does not make it")
    sections = [f"{_as_comment(module)}\n\n\n{module.code}" for module in ordered]
    door = modules[DOOR]
    head = f'"""{door.docstring}\n"""\n\n{ORIGIN}\n\n{_imports(ordered)}\n\n{door.code}'
    text = f"{head}\n\n" + "\n\n\n".join(sections) + "\n"
    compile(text, "lotabots_verify.py", "exec", dont_inherit=True)
    return text


def _take_apart(name: str, text: str) -> Module:
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree)
    if docstring is None:
        raise ValueError(f"{name} does not begin with a docstring")
    head = [node for node in tree.body[1:] if isinstance(node, ast.Import | ast.ImportFrom)]
    last = max(node.end_lineno or 0 for node in (tree.body[0], *head))
    lines = text.splitlines()
    module = Module(name, docstring, "\n".join(lines[last:]).strip("\n"))
    if any(line.startswith("#") for line in lines[tree.body[0].end_lineno : last]):
        raise ValueError(f"{name} has a comment among its imports, which would be lost")
    if {id(node) for node in head} != {id(node) for node in _imports_within(tree)} or any(
        node.lineno <= last for node in tree.body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)
    ):
        raise ValueError(f"{name} has an import that is not at its top")
    for node in head:
        _note_import(module, node)
    module.own = set().union(*(_names_set_by(name, node) for node in tree.body[1 + len(head) :]))
    return module


def _imports_within(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _note_import(module: Module, node: ast.Import | ast.ImportFrom) -> None:
    names = [alias.name for alias in node.names]
    if any(alias.asname for alias in node.names) or "*" in names:
        raise ValueError(f"{module.name} imports under another name, or everything: line {node.lineno}")
    if isinstance(node, ast.ImportFrom) and node.level:
        if node.level > 1 or not node.module or "." in node.module:
            raise ValueError(
                f"{module.name} imports a module or from outside the package: line {node.lineno}"
            )
        module.inner |= dict.fromkeys(names, node.module)
        return
    for origin in names if isinstance(node, ast.Import) else [str(node.module)]:
        top = origin.partition(".")[0]
        if top not in sys.stdlib_module_names and top != FOREIGN:
            raise ValueError(f"{module.name} imports {origin}")
    if isinstance(node, ast.Import):
        module.plain |= set(names)
    else:
        module.foreign |= dict.fromkeys(names, str(node.module))


def _names_set_by(module: str, node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    if targets and all(isinstance(target, ast.Name) for target in targets):
        return {target.id for target in targets if isinstance(target, ast.Name)}
    if module == ENTRY and isinstance(node, ast.If):
        return set()
    raise ValueError(f"{module} does more than set names: line {node.lineno}")


def _needed(name: str, modules: dict[str, Module], path: tuple[str, ...]) -> Iterator[Module]:
    """A module after those that it needs, each once."""
    if name in path or name not in modules:
        raise ValueError(f"{' → '.join((*path, name))}: a circle, or no such module")
    seen: set[str] = set()
    for home in sorted(set(modules[name].inner.values())):
        for module in _needed(home, modules, (*path, name)):
            if module.name not in seen:
                seen.add(module.name)
                yield module
    yield modules[name]


def _refuse_clashes(modules: list[Module]) -> None:
    meaning: dict[str, str] = {}
    for module in modules:
        said = [(name, module.name) for name in module.own]
        said += [*module.foreign.items(), *module.inner.items()]
        said += [(name.partition(".")[0], f"import {name}") for name in module.plain]
        for name, origin in said:
            if meaning.setdefault(name, origin) != origin:
                raise ValueError(f"{name} is one thing in {meaning[name]} and another in {module.name}")
            if hasattr(builtins, name):
                raise ValueError(f"{module.name} hides the builtin {name}")


def _imports(modules: list[Module]) -> str:
    """One block, as the formatter would sort it."""
    plain = sorted(set().union(*(module.plain for module in modules)))
    names: dict[str, set[str]] = {}
    if len({module.foreign.get("annotations") for module in modules}) > 1:
        raise ValueError("only some of the modules import annotations from __future__")
    for module in modules:
        for name, origin in module.foreign.items():
            names.setdefault(origin, set()).add(name)
    future = f"from __future__ import {', '.join(sorted(names.pop('__future__', {'annotations'})))}"
    sections = [
        [f"import {name}" for name in plain if _is_foreign(name) is foreign]
        + [
            f"from {origin} import {', '.join(sorted(found, key=lambda one: (not one.isupper(), one)))}"
            for origin, found in sorted(names.items())
            if _is_foreign(origin) is foreign
        ]
        for foreign in (False, True)
    ]
    return "\n\n".join([future, *("\n".join(section) for section in sections if section)])


def _is_foreign(origin: str) -> bool:
    return origin.partition(".")[0] == FOREIGN


def _as_comment(module: Module) -> str:
    lines = [f"--- {module.name}.py ---", *module.docstring.splitlines()]
    return "\n".join(f"# {line}".rstrip() for line in lines)


if __name__ == "__main__":
    sys.stdout.write(merge(PACKAGE))
