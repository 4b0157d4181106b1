"""The configuration: TOML parsed once into frozen dataclasses; unknown keys and bad values are errors.

All problems are reported together, each with its line. Pure except for `load`, which reads the file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from .errors import Code, LotaBotsError
from .files import read_bounded
from .paths import Paths

MAX_CONFIG_BYTES = 256 * 1024


def _between(low: float, high: float) -> Callable[[Any], str | None]:
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}"


def _one_of(*allowed: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _host_port(value: str) -> str | None:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        return "must be HOST:PORT, as in 127.0.0.1:8443"
    return None


def _plain_path(value: str) -> str | None:
    # Triton starts its Python stub through a shell line without quotes.
    if value and not re.fullmatch(r"/[A-Za-z0-9._+@=:,/-]*", value):
        return "must be an absolute path without white space or shell characters"
    return None


def _absolute_path(value: str) -> str | None:
    return None if not value or value.startswith("/") else "must be an absolute path"


def _image(value: str) -> str | None:
    # A tag can be moved to other contents, a digest cannot.
    if not value or re.fullmatch(r"([a-z0-9][a-z0-9._:/-]{0,255}@)?sha256:[0-9a-f]{64}", value):
        return None
    return "must be NAME@sha256:..., or the image's id, sha256:..., with 64 digits"


def _user_name(value: str) -> str | None:
    fits = re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value) and value != "root"
    return None if fits else "must be the name of a user other than root"


def _sha256(value: str) -> str | None:
    return None if re.fullmatch(r"([0-9a-f]{64})?", value) else "must be 64 hexadecimal digits in lower case"


def _gpus(value: tuple[str, ...]) -> str | None:
    fits = all(re.fullmatch(r"(GPU|MIG)-[0-9a-f-]{36}", each) for each in value)
    return None if fits else "must be UUIDs, as nvidia-smi -L shows them: GPU-... or MIG-..."


def _workers(value: int | str) -> str | None:
    if value == "auto" or (isinstance(value, int) and 1 <= value <= 32):
        return None
    return 'must be "auto" or a number from 1 to 32'


def _cron(value: str) -> str | None:
    return None if len(value.split()) == 5 else 'must have five fields, as in "15 0 1 * *"'


def key(default: Any, check: Callable[[Any], str | None] | None = None) -> Any:
    """One configuration key with its default and a check that returns what is wrong, or None."""
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True)
class ApplianceConfig:
    """`[appliance]`"""

    name: str = key(
        "lotabots",
        lambda v: (
            None
            if re.fullmatch(r"[A-Za-z0-9.-]{1,63}", v)
            else "must be 1 to 63 letters, digits, dots or hyphens"
        ),
    )
    state_directory: str = key("/var/lib/lotabots", _plain_path)
    run_directory: str = key("/run/lotabots", _plain_path)


@dataclass(frozen=True, slots=True)
class GateConfig:
    """`[gate]`"""

    listen: str = key("127.0.0.1:8080", _host_port)
    workers: int | str = key(1, _workers)
    max_body_bytes: int = key(64 * 1024 * 1024, _between(1_024, 1 << 30))
    max_header_bytes: int = key(16 * 1024, _between(1_024, 1 << 20))
    max_connections: int = key(1_024, _between(1, 65_536))
    max_in_flight: int = key(64, _between(1, 4_096))
    max_queued: int = key(256, _between(0, 65_536))
    header_timeout_seconds: float = key(10.0, _between(0.1, 600))
    body_timeout_seconds: float = key(60.0, _between(0.1, 3_600))
    idle_timeout_seconds: float = key(75.0, _between(1, 3_600))
    upstream_timeout_seconds: float = key(60.0, _between(0.1, 3_600))
    drain_seconds: float = key(30.0, _between(0, 3_600))
    policy_lease_seconds: float = key(3_600.0, _between(1, 86_400))
    max_buffered_bytes: int = key(256 * 1024 * 1024, _between(1 << 20, 1 << 36))
    queue_timeout_seconds: float = key(10.0, _between(0.01, 600))
    decoders: int = key(2, _between(1, 32))
    max_image_pixels: int = key(40_000_000, _between(1_024, 500_000_000))
    decode_timeout_seconds: float = key(10.0, _between(0.1, 120))

    def worker_count(self, processors: int) -> int:
        """How many workers to run: the number given, or for "auto" one per processor, at most 32."""
        return self.workers if isinstance(self.workers, int) else max(1, min(32, processors))


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """`[runtime]`"""

    kind: str = key("embedded", _one_of("embedded", "container"))
    python: str = key("", _plain_path)
    image: str = key("", _image)
    image_archive: str = key("", _absolute_path)
    image_archive_sha256: str = key("", _sha256)
    allow_pull: bool = False
    upgrade: str = key("beside", _one_of("beside", "replace"))
    backend: str = key("package", _one_of("package", "python"))
    gpus: tuple[str, ...] = key((), _gpus)
    transport: str = key("unix", _one_of("unix", "tcp"))
    tcp_port: int = key(8_000, _between(1_024, 65_533))
    engine_socket: str = key("/run/docker.sock", _plain_path)
    user: str = key("lotabots-triton", _user_name)
    memory_bytes: int = key(8 << 30, _between(256 << 20, 1 << 44))
    shared_memory_bytes: int = key(1 << 30, _between(16 << 20, 1 << 40))
    max_processes: int = key(4_096, _between(64, 65_536))
    start_timeout_seconds: float = key(120.0, _between(1, 3_600))
    drain_seconds: float = key(30.0, _between(0, 3_600))
    stop_timeout_seconds: float = key(45.0, _between(1, 3_600))
    probe_seconds: float = key(1.0, _between(0.1, 60))

    @property
    def variant(self) -> str:
        """How models are prepared: "embedded" (for Triton's Python backend), or "container" (as packaged)."""
        return "embedded" if self.kind == "embedded" or self.backend == "python" else "container"


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """`[models]`"""

    repository: str = "/opt/lotabots/current/model_repository"
    enabled: tuple[str, ...] = ("page_orientation",)
    allow_code: bool = False


@dataclass(frozen=True, slots=True)
class LicenceConfig:
    """`[licence]`"""

    operator_fingerprint: str = key(
        "",
        lambda v: (
            None
            if not v or re.fullmatch(r"[!-~]{16,128}", v)
            else "must be 16 to 128 characters without white space, that nobody can guess"
        ),
    )


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`[limits]`"""

    slots: int = key(16_384, _between(64, 4_194_304))


@dataclass(frozen=True, slots=True)
class UsageConfig:
    """`[usage]`"""

    durability: str = key("power", _one_of("power", "process"))
    segment_bytes: int = key(4 * 1024 * 1024, _between(64 * 1024, 1 << 30))
    drain_seconds: float = key(1.0, _between(0.05, 60))
    reserve_bytes: int = key(16 * 1024 * 1024, _between(0, 1 << 34))
    retention_days: int = key(400, _between(1, 36_500))


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """`[report]`"""

    schedule: str = key("15 0 1 * *", _cron)
    pseudonyms: bool = False


@dataclass(frozen=True, slots=True)
class AttestationConfig:
    """`[attestation]`"""

    algorithm: str = key("EdDSA", _one_of("EdDSA", "Ed25519"))
    token_seconds: int = key(600, _between(10, 600))
    receipts_keep_days: int = key(400, _between(1, 3_660))
    receipts_keep_most: int = key(1_000_000, _between(1, 100_000_000))


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """`[control]`"""

    group: str = "lotabots-admin"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`[log]`"""

    level: str = key("info", _one_of("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; every section may be left out."""

    appliance: ApplianceConfig = field(default_factory=ApplianceConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    licence: LicenceConfig = field(default_factory=LicenceConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    usage: UsageConfig = field(default_factory=UsageConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    attestation: AttestationConfig = field(default_factory=AttestationConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def paths(self) -> Paths:
        """The layout that the two directories give."""
        return Paths(Path(self.appliance.state_directory), Path(self.appliance.run_directory))


def load(path: Path) -> Config:
    """Read and check a configuration file. Raises CONFIG_INVALID naming every problem, FILE_UNREADABLE."""
    return parse(read_bounded(path, MAX_CONFIG_BYTES), str(path))


def parse(data: bytes, name: str) -> Config:
    """Check configuration bytes; `name` is how messages call the file. Raises CONFIG_INVALID."""
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LotaBotsError(Code.CONFIG_INVALID, f"{name}: {error}") from error
    lines = _line_numbers(text)
    problems: list[tuple[int, str]] = []
    sections: dict[str, Any] = {}
    hints = typing.get_type_hints(Config)
    known = {f.name for f in fields(Config)}
    for section, content in document.items():
        line = lines.get((section, ""), lines.get(("", section), 1))
        if section not in known:
            problems.append((line, f"[{section}] is not a section{_meant(section, known)}"))
        elif not isinstance(content, dict):
            problems.append((line, f"{section} must be a section, [{section}]"))
        else:
            sections[section] = _section(hints[section], section, content, lines, problems)
    if not problems:
        config = Config(**sections)
        problems = [(lines.get(where, 1), problem) for where, problem in _together(config)]
        if not problems:
            return config
    shown = [f"{name}:{line}: {problem}" for line, problem in sorted(problems)]
    raise LotaBotsError(Code.CONFIG_INVALID, "\n  ".join(["", *shown]), problems=shown)


def _together(config: Config) -> list[tuple[tuple[str, str], str]]:
    """What is wrong only with two keys side by side, each with the key that is to be mended."""
    runtime, found = config.runtime, []
    if runtime.kind == "container" and not runtime.image:
        found.append((("runtime", "kind"), "runtime.image must be given for the container runtime"))
    if bool(runtime.image_archive) != bool(runtime.image_archive_sha256):
        given = "image_archive" if runtime.image_archive else "image_archive_sha256"
        found.append((("runtime", given), "runtime.image_archive and its sha256 must be given together"))
    if runtime.transport == "tcp" and runtime.kind != "container":
        found.append((("runtime", "transport"), "runtime.transport tcp is for the container runtime alone"))
    if runtime.allow_pull and "@" not in runtime.image:
        found.append((("runtime", "allow_pull"), "runtime.image must be NAME@sha256:... to be pulled"))
    return found


def _section(
    kind: type,
    section: str,
    content: dict[str, Any],
    lines: dict[tuple[str, str], int],
    problems: list[tuple[int, str]],
) -> Any:
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in content.items():
        line = lines.get((section, name), lines.get((section, ""), lines.get(("", section), 1)))
        if name not in known:
            problems.append((line, f"{section}.{name} is not a key{_meant(name, set(known))}"))
            continue
        fitted, wrong = _fit(hints[name], value)
        if wrong is None:
            check = known[name].metadata.get("check")
            wrong = check(fitted) if check else None
        if wrong is not None:
            problems.append((line, f"{section}.{name} {wrong}, not {value!r}"))
        values[name] = fitted
    return kind(**values) if not problems else None


def _fit(hint: Any, value: Any) -> tuple[Any, str | None]:
    """Convert a TOML value to the type of its key; the second part says what is wrong."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            fitted, wrong = _fit(option, value)
            if wrong is None:
                return fitted, None
        return value, "has the wrong type"
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value), None
        return value, "must be a list of texts"
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), None
    if hint is int and isinstance(value, bool):
        return value, "must be a whole number"
    if isinstance(value, hint):
        return value, None
    return value, {
        int: "must be a whole number",
        str: "must be text",
        bool: "must be true or false",
        float: "must be a number",
    }[hint]


def _meant(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """(section, key) → line, for the plain TOML that configuration files are written in."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([A-Za-z0-9_-]+)(?:\.([A-Za-z0-9_-]+))?", line)
        assignment = re.match(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*[.=]", line)
        if header:
            section = header.group(1)
            found.setdefault((section, header.group(2) or ""), number)
        elif assignment:
            found.setdefault((section, assignment.group(1)), number)
    return found
