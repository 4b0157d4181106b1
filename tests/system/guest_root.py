"""What a virtual machine boots: Debian's kernel, unpacked and not installed, and a root in memory.

The root (an initramfs) is this Python with its library, the packages that one program imports, and
the shared libraries that are mapped while it does. There is no distribution in it, and no shell.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import lzma
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "power-cut"
KERNEL = "linux-image-cloud-amd64"
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
    "setpriv": "util-linux",
}
# What the drivers of disk and channel need, in order; ext4 is built in.
MODULES = ("virtio_pci", "virtio_blk", "virtio_console")
SITE = "/site"
_UNCHECKED = (1).to_bytes(4, "little") + bytes(8)  # PEP 552: valid, whatever the source's time
_NOT_NEEDED = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "site-packages",
    }
    | {"__pycache__", "distutils", "unittest", "venv", "pip"}
)
_LEFT_OUT = frozenset({"numpy"})  # large; what imports it here does without
_TELL = """
import json, runpy, sys
runpy.run_path(sys.argv[1], run_name="imported")
files = [m.__file__ for n, m in sys.modules.items() if "." not in n and getattr(m, "__file__", None)]
maps = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if ".so" in line}
print(json.dumps([files, sorted(maps)]))
"""


def require_machine() -> None:
    """Install what a machine needs where we may; else skip and say the command that helps."""
    if os.uname().machine != "x86_64":
        pytest.skip("the virtual machine is an x86_64; enable it: run on such a machine")
    missing = [package for tool, package in TOOLS.items() if _tool(tool) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *missing)
    for tool, package in TOOLS.items():
        if _tool(tool) is None:
            pytest.skip(f"{tool} is missing; enable it: apt-get install {package}")


def _apt(*words: str, folder: Path | None = None) -> str:
    """Run apt-get; what it complains of is in the answer, and what it did is to be looked at."""
    done = subprocess.run(
        ["apt-get", "-qq", *words],
        cwd=folder,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stderr.strip()[-300:]


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def make_file_system(size_bytes: int) -> bytes:
    """An empty ext4 with Debian's defaults."""
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(size_bytes)
        mkfs = _tool("mkfs.ext4")
        assert mkfs is not None
        subprocess.run([mkfs, "-q", "-F", image.name], check=True, capture_output=True, timeout=60)
        return Path(image.name).read_bytes()


def kernel() -> Path:
    """The folder of an unpacked kernel package; fetched once. Skips where it cannot be had."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = CACHE / "kernel"
        if not unpacked.is_dir():
            with tempfile.TemporaryDirectory(prefix="lotabots-kernel-") as folder:
                Path(folder).chmod(0o755)  # apt fetches as a user of its own
                _unpack_kernel(Path(folder))
            (CACHE / "unfinished").rename(unpacked)
    return unpacked


def _unpack_kernel(folder: Path) -> None:
    """Fetch the kernel that Debian's package points to, and unpack it beside the cache."""
    if shutil.which("apt-get") is None:
        pytest.skip(f"the kernel comes with apt from Debian ({KERNEL}); enable it: run on a Debian for amd64")
    name = _name_of_kernel()
    if not name and os.geteuid() == 0:
        _apt("update")
        name = _name_of_kernel()
    complaint = _apt("download", name or KERNEL, folder=folder)
    packages = sorted(folder.glob("*.deb"))
    if not packages:
        pytest.skip(
            f"{KERNEL} is not to be had ({complaint}); enable it: apt-get update, on a Debian for amd64"
        )
    unfinished = CACHE / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", packages[0], unfinished], check=True, timeout=120)


def _name_of_kernel() -> str:
    command = ["apt-cache", "depends", "--important", KERNEL]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Depends: (linux-image-\S+)", told.stdout)
    return found[1] if found else ""


def vmlinuz(unpacked: Path) -> Path:
    """The kernel itself."""
    return next((unpacked / "boot").glob("vmlinuz-*"))


def make_root(unpacked: Path, program: Path, target: Path) -> None:
    """Write a root that can run `program` as its first process, as /site/NAME."""
    archive = Archive()
    for name, content in _modules(unpacked):
        archive.file(f"/modules/{name}", content)
    archive.file("/modules/order", "\n".join(name for name, _ in _modules(unpacked)).encode())
    tell = [sys.executable, "-c", _TELL, str(program)]
    path = os.pathsep.join((str(program.parent), str(ROOT)))
    told = subprocess.run(
        tell, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert told.returncode == 0, told.stderr
    files, libraries = json.loads(told.stdout.splitlines()[-1])
    for library in libraries:
        _add_library(archive, Path(library))
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    _add_python(archive, stdlib, str(stdlib))
    for module in map(Path, files):
        if module.is_relative_to(stdlib) and "site-packages" not in module.parts:
            continue
        if module.parent.name in _LEFT_OUT:
            continue
        if module.stem == "__init__":
            _add_python(archive, module.parent, f"{SITE}/{module.parent.name}")
        elif not module.stem.startswith("__"):  # the hooks of an editable installation
            _add_module(archive, module, f"{SITE}/{module.name}")
    _add_module(archive, program, f"{SITE}/{program.name}")
    python = Path(os.path.realpath(sys.executable))
    archive.file("/python", python.read_bytes(), 0o755)
    archive.file("/lib64/ld-linux-x86-64.so.2", Path("/lib64/ld-linux-x86-64.so.2").read_bytes(), 0o755)
    for folder in ("/data", "/dev", "/proc", "/run", "/sys", "/tmp"):
        archive.folder(folder)
    target.write_bytes(archive.whole())


def environment_of_root() -> dict[str, str]:
    """What the first process needs to find its library."""
    return {
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": SITE,
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/shared",
    }


def _add_library(archive: Archive, library: Path) -> None:
    """A shared library under every name that its neighbours have for it, all in one folder."""
    if "lib-dynload" in library.parts or "site-packages" in library.parts:
        return  # with its package
    archive.file(f"/shared/{library.name}", library.read_bytes(), 0o755)
    for neighbour in library.parent.glob(f"{library.name.partition('.so')[0]}.so.*"):
        if neighbour.is_symlink() and neighbour.resolve() == library.resolve():
            archive.link(f"/shared/{neighbour.name}", library.name)


def _add_python(archive: Archive, source: Path, target: str) -> None:
    for entry in sorted(source.iterdir()):
        if entry.is_dir() and entry.name not in _NOT_NEEDED and not entry.name.startswith("config-"):
            _add_python(archive, entry, f"{target}/{entry.name}")
        elif entry.suffix in (".py", ".so"):
            _add_module(archive, entry, f"{target}/{entry.name}")


def _add_module(archive: Archive, source: Path, target: str) -> None:
    """A module without its source: its time would not be the one that the compiled one knows."""
    if source.suffix != ".py":
        archive.file(target, source.read_bytes(), 0o755)
        return
    compiled = Path(importlib.util.cache_from_source(str(source)))
    if not compiled.is_file() or compiled.stat().st_mtime < source.stat().st_mtime:
        with tempfile.TemporaryDirectory() as folder:
            made = py_compile.compile(str(source), f"{folder}/made.pyc", dfile=target, quiet=2)
            if made is None:
                return  # a template that is no Python
            data = Path(made).read_bytes()
    else:
        data = compiled.read_bytes()
    archive.file(f"{target}c", data[:4] + _UNCHECKED + data[16:])


def _modules(unpacked: Path) -> list[tuple[str, bytes]]:
    """Name and content of the kernel modules, each behind those that it depends on."""
    there = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in (unpacked / "lib" / "modules").rglob("*.ko*")
    }
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in there:  # built in
            return
        data = there[name].read_bytes()
        data = lzma.decompress(data) if there[name].suffix == ".xz" else data
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends else ():
            add(other)
        found[name] = data

    for name in MODULES:
        add(name)
    return list(found.items())


class Archive:
    """A cpio archive ("newc"), as the kernel unpacks it into its first root."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._there: set[str] = set()

    def folder(self, path: str) -> None:
        """A folder, and those above it."""
        for parent in [*reversed(Path(path).parents[:-1]), Path(path)]:
            if str(parent) not in self._there:
                self._add(str(parent), stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file; the first one of a name stays."""
        if path not in self._there:
            self.folder(str(Path(path).parent))
            self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link beside its target."""
        if path not in self._there:
            self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def whole(self) -> bytes:
        """The whole archive."""
        self._add("/TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, path: str, mode: int, content: bytes) -> None:
        self._there.add(path)
        name = path[1:].encode() + b"\0"
        fields = (len(self._there), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        self._parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
