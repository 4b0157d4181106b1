"""Tracked files name no machine and no package index; the locks pin everything that is asked for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

# Put together here, so that this file does not hold them.
HOSTS = tuple(
    ".".join(parts)
    for parts in (("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"), ("npmjs", "org"))
)
PATHS = tuple("/" + rest for rest in ("root/", "work/main", "work/shared", "tmp/w/", "home/"))
LOCKS = ("lock.txt", "build.txt", "dev.txt", "embedded.txt")


@pytest.fixture(scope="module")
def texts(files: list[Path], root: Path) -> dict[str, str]:
    """Every tracked text, by its path."""
    found = {}
    for file in files:
        data = file.read_bytes()
        if b"\0" not in data[:8192]:
            found[str(file.relative_to(root))] = data.decode("utf-8", errors="replace")
    return found


def test_no_tracked_file_names_a_package_index(texts: dict[str, str]) -> None:
    assert not [(where, host) for where, text in texts.items() for host in HOSTS if host in text]


def test_no_tracked_file_names_a_path_of_one_machine(texts: dict[str, str]) -> None:
    found = [
        f"{where}:{number}: {line.strip()[:100]}"
        for where, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if any(path in line for path in PATHS)
    ]
    assert not found, "\n".join(found)


def test_no_tracked_file_is_large(files: list[Path]) -> None:
    assert not [(f.name, f.stat().st_size) for f in files if f.stat().st_size > 1024 * 1024]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_pinned_and_hashed(root: Path, lock: str) -> None:
    text = (root / "requirements" / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 1)[1])
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[A-Za-z0-9.]+( ; [^\\]+)? \\\n    --hash=sha256:", entry), entry[:80]


@pytest.mark.parametrize(
    ("lock", "section"), [("lock.txt", "product"), ("dev.txt", "dev"), ("embedded.txt", "embedded")]
)
def test_the_lock_holds_what_pyproject_asks_for(root: Path, lock: str, section: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    asked = {
        "product": project["project"]["dependencies"],
        "dev": project["project"]["dependencies"] + project["dependency-groups"]["dev"],
        "embedded": project["project"]["optional-dependencies"]["embedded"],
    }[section]
    names = {re.split(r"[\[><=; ]", line)[0].lower() for line in asked}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (root / "requirements" / lock).read_text(), re.MULTILINE))
    assert names <= locked, f"run scripts/lock: {names - locked}"


def test_the_two_locks_agree_on_every_version(root: Path) -> None:
    def versions(lock: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(
            r"^([a-z0-9-]+)==([^ ]+)", (root / "requirements" / lock).read_text(), re.MULTILINE
        ):
            found.setdefault(name, set()).add(version)
        return found

    product, development = versions("lock.txt"), versions("dev.txt")
    assert {name: development.get(name) for name in product} == product
