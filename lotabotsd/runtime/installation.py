"""Find the embedded Triton in the runtime's virtual environment, and make the backend directory it needs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError

from .command import flags_in_help

PROBE_SECONDS = 30.0
STUB = "triton_python_backend_stub"
# Run by the runtime's own Python: what is installed there, and where. Prints one JSON object.
_ASK = """
import importlib.metadata as metadata, json, sys, sysconfig
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
print(json.dumps({
    "site": sysconfig.get_path("purelib"),
    "python": "%d.%d" % sys.version_info[:2],
    "library": sysconfig.get_config_var("INSTSONAME") or "",
    "library_directory": sysconfig.get_config_var("LIBDIR") or "",
    "shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    "wheel": version("nvidia-pytriton"), "numpy": version("numpy"), "onnxruntime": version("onnxruntime"),
}))
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """An embedded Triton that can be started."""

    python: Path
    server: Path
    stub: Path
    backend: Path  # the directory of the wheel's Python backend
    libraries: tuple[Path, ...]  # for LD_LIBRARY_PATH
    versions: dict[str, str]  # of nvidia-pytriton, numpy, onnxruntime and Python
    flags: frozenset[str]


def find_installation(python: str) -> Installation:
    """Ask the Python named (this one when empty) what it holds, and its Triton which options it knows.

    Raises RUNTIME_MISSING that names what is not there.
    """
    interpreter = Path(python or sys.executable)
    found = _ask(interpreter)
    for name, distribution in (
        ("wheel", "nvidia-pytriton"),
        ("numpy", "numpy"),
        ("onnxruntime", "onnxruntime"),
    ):
        if not found[name]:
            raise LotaBotsError(Code.RUNTIME_MISSING, f"{interpreter} has no {distribution}")
    site = Path(found["site"])
    triton = site / "pytriton" / "tritonserver"
    stub = triton / "python_backend_stubs" / found["python"] / STUB
    server, backend = triton / "bin" / "tritonserver", triton / "backends" / "python"
    for path in (server, backend / "libtriton_python.so", stub):
        if not path.is_file():
            raise LotaBotsError(
                Code.RUNTIME_MISSING,
                f"nvidia-pytriton {found['wheel']} lacks {path} (Python {found['python']})",
            )
    libraries: tuple[Path, ...] = (site / "nvidia_pytriton.libs",)
    beside = Path(found["library_directory"])
    if found["shared"] and (beside / found["library"]).is_file():
        libraries += (beside,)
    return Installation(
        python=interpreter,
        server=server,
        stub=stub,
        backend=backend,
        libraries=libraries,
        versions={
            "nvidia-pytriton": found["wheel"],
            "numpy": found["numpy"],
            "onnxruntime": found["onnxruntime"],
            "python": found["python"],
        },
        flags=probe_flags(server, libraries),
    )


def probe_flags(server: Path, libraries: tuple[Path, ...]) -> frozenset[str]:
    """The options that this tritonserver knows. Raises RUNTIME_MISSING when it cannot even print them."""
    environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries)}
    done = _run([str(server), "--help"], environment)
    said = done.stdout + done.stderr  # 2.51 prints its help on standard error and ends with 1
    flags = flags_in_help(said)
    if not flags:
        reason = said.strip().splitlines()[-1][:300] if said.strip() else f"exit {done.returncode}"
        raise LotaBotsError(Code.RUNTIME_MISSING, f"{server} --help lists no options: {reason}")
    return flags


def make_backends(installation: Installation, directory: Path) -> Path:
    """A private backend directory: the stub copied, executable, beside links into the wheel.

    The wheel stays untouched. `directory` is made anew. It lies in a directory that another user may own,
    so everything goes through one descriptor that was checked: ours, no link, writable by nobody else.
    Returns the path of the stub. Raises FILE_UNWRITABLE.
    """
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
                raise LotaBotsError(
                    Code.FILE_UNWRITABLE, f"{directory} must be ours, and writable by us alone"
                )
            os.fchmod(descriptor, 0o755)
            python = Path(f"/proc/self/fd/{descriptor}/python")
            if python.exists():
                shutil.rmtree(python)
            python.mkdir()
            python.chmod(0o755)
            for source in sorted(installation.backend.iterdir()):
                if source.is_file():
                    (python / source.name).symlink_to(source)
            shutil.copyfile(installation.stub, python / STUB)
            (python / STUB).chmod(0o755)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{directory}: {error.strerror}") from error
    return directory / "python" / STUB


def _ask(interpreter: Path) -> dict[str, str]:
    done = _run([str(interpreter), "-I", "-c", _ASK], {"PATH": "/usr/bin:/bin"})
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except ValueError as error:
        raise LotaBotsError(
            Code.RUNTIME_MISSING, f"{interpreter} does not answer as a Python does"
        ) from error
    return found


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise LotaBotsError(Code.RUNTIME_MISSING, f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LotaBotsError(
            Code.RUNTIME_MISSING, f"{command[0]} did not answer in {PROBE_SECONDS:.0f} s"
        ) from error
