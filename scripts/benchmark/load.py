"""Send load with wrk and h2load and read what they measured; reading is pure, sending is the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "MEASURED "
# wrk calls `done` once at the end; latencies and duration are microseconds.
_SCRIPT = """
local file = assert(io.open("{body}", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('MEASURED {{"requests":%d,"duration_us":%d,"p50_us":%.1f,"p99_us":%.1f,'
        .. '"status":%d,"broken":%d}}\\n', summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of a load generator saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int  # answers that were not 2xx, and connections that broke

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


class LoadError(Exception):
    """A load generator printed nothing that can be used; the text says what it did print."""


def read_wrk(output: str) -> Measured:
    """The measurement in wrk's output. Raises LoadError."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise LoadError(f"wrk: {output.strip()[-400:] or 'no output'}")
    try:
        seen = json.loads(lines[0][len(MARK) :])
        return Measured(
            requests=seen["requests"],
            seconds=seen["duration_us"] / 1e6,
            p50_ms=seen["p50_us"] / 1e3,
            p99_ms=seen["p99_us"] / 1e3,
            failed=seen["status"] + seen["broken"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"wrk: {lines[0]}") from error


def read_h2load(log: str) -> Measured:
    """The measurement in h2load's log: one line per request, start (µs), status, duration (µs).

    Raises LoadError when not one request ended.
    """
    rows = []
    for line in log.splitlines():
        fields = line.split("\t")
        if len(fields) < 3:
            continue  # the last line may be cut off
        rows.append((int(fields[0]), int(fields[1]), int(fields[2])))
    if len(rows) < 2:
        raise LoadError("h2load: not two requests ended")
    begun, ended = min(row[0] for row in rows), max(row[0] + row[2] for row in rows)
    spent = sorted(row[2] for row in rows)
    return Measured(
        requests=len(rows),
        seconds=(ended - begun) / 1e6,
        p50_ms=percentile(spent, 0.50) / 1e3,
        p99_ms=percentile(spent, 0.99) / 1e3,
        failed=sum(not 200 <= row[1] < 300 for row in rows),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed (nearest rank)."""
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def closed_loop(
    folder: Path, url: str, headers: Mapping[str, str], body: Path, *, clients: int, seconds: float
) -> Measured:
    """wrk: every client sends its next request when the last one was answered. Raises LoadError."""
    script = folder / "wrk.lua"
    named = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()
    )
    script.write_text(_SCRIPT.format(body=body, headers=named))
    duration = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{duration}s", "--timeout", "20s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=duration + 60, check=False)
    return read_wrk(done.stdout + done.stderr)


def open_loop(
    folder: Path,
    url: str,
    headers: Mapping[str, str],
    body: Path,
    *,
    clients: int,
    seconds: float,
    per_second: float,
) -> Measured:
    """h2load: requests start at a fixed rate, shared among the clients. Raises LoadError.

    A client of HTTP/1.1 has one request under way at a time, so one that is late delays its own next.
    """
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", "-t1", f"-c{clients}", f"-D{max(1, round(seconds))}"]
    command += [f"--rps={per_second / clients:.3f}", f"--log-file={log}", "-d", str(body)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=False)
    if not log.is_file():
        raise LoadError(f"h2load: {(done.stdout + done.stderr).strip()[-400:]}")
    return read_h2load(log.read_text())
