"""The checks of scripts/gpu-check, one function each: what it returns is its detail in the result."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import matmul
from asking import Asked, ask_once, closed_loop
from figures import Figures, Sample
from gpu_rig import GpuRig
from verdicts import CheckError, NotHereError, Result

Check = tuple[str, Callable[[], str]]
NAMES = (
    "probe",
    "appliance starts",
    "daemon lists the gpus",
    "metrics name the gpus",
    "token names the gpus",
    "triton computes on the gpu",
    "driver sees the process",
    "bare triton starts",
    "answers are right",
    "throughput",
    "gpu is busy under load",
    "triton comes back",
)
DRILLS = ("a driver that hangs", "a gpu off the bus", "an uncorrectable error")
GATE, BARE = "gate", "bare Triton"
CLIENTS = 8
LOOP_SECONDS = 45.0  # the daemon looks at the GPUs every 10 s, and waits for them as long


class Checks:
    """The checks over one appliance."""

    def __init__(
        self,
        rig: GpuRig,
        result: Result,
        seen: dict[str, Any],
        look: Callable[[int], dict[str, Any]],
        *,
        quick: bool,
    ) -> None:
        self._rig = rig
        self._result = result
        self._seen = seen
        self._look = look
        self._runs, self._seconds = (1, 1.0) if quick else (5, 3.0)
        self._on_gpu = False

    def of_the_appliance(self) -> Iterator[Check]:
        """All that need an appliance, in their order."""
        functions = (
            self._daemon_lists,
            self._metrics,
            self._token,
            self._computes_on_the_gpu,
            self._driver_sees_the_process,
            self._start_bare,
            self._answers_are_right,
            self._throughput,
            self._busy,
            self._comes_back,
        )
        return iter(zip(NAMES[2:], functions, strict=True))

    def drills(self, host: Any) -> Iterator[Check]:
        """Failures that only the stand-in can have."""
        functions = (self._hang, self._off_the_bus, self._uncorrectable)
        return iter((name, lambda f=f: f(host)) for name, f in zip(DRILLS, functions, strict=True))

    # -- the probe ---------------------------------------------------------------------------------------

    def probe(self) -> str:
        """Every GPU has a name, a UUID and a verdict; how long a look takes."""
        for item in self._seen["items"]:
            missing = [name for name in ("uuid", "name", "driver") if not item[name]]
            if missing:
                raise CheckError(f"GPU {item['index']} has no {missing[0]}: {item['detail']}")
        spent = [1e3 * seconds for seconds in self._seen["seconds"]]
        self._result.facts["probe"] = {
            "open_ms": round(1e3 * self._seen["open_seconds"], 1),
            "look_median_ms": round(median(spent), 2),
            "look_longest_ms": round(max(spent), 2),
        }
        unwell = [f"GPU {i['index']}: {i['detail']}" for i in self._seen["items"] if i["health"] != "healthy"]
        told = f"; not healthy: {'; '.join(unwell)}" if unwell else ""
        return f"{len(self._seen['items'])} GPUs, a look takes {median(spent):.1f} ms{told}"

    def start(self) -> str:
        """Daemon, helper, Triton and gate."""
        self._rig.start()
        self._rig.start_gate()
        self._result.facts["versions"] = self._rig.versions()
        return "with the model on the processor"

    def _uuids(self) -> set[str]:
        return {item["uuid"] for item in self._seen["items"]}

    def _daemon_lists(self) -> str:
        listed = {item["uuid"] for item in self._rig.ctl("gpu", "list")["items"]}
        if listed != self._uuids():
            raise CheckError(f"the daemon lists {sorted(listed)}")
        return self._rig.ctl_text("gpu", "list").splitlines()[1]

    def _metrics(self) -> str:
        text = self._rig.ctl_text("metrics")
        lines = [line for line in text.splitlines() if line.startswith("DCGM_")]
        silent = [uuid for uuid in self._uuids() if not any(uuid in line for line in lines)]
        if silent:
            raise CheckError(f"no series for {', '.join(silent)}")
        return f"{len(lines)} series under DCGM's names"

    def _token(self) -> str:
        token = self._rig.ctl("attest")["token"]
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        said = json.dumps(claims["submods"])
        silent = [uuid for uuid in self._uuids() if uuid not in said]
        if silent:
            raise CheckError(f"the token does not name {', '.join(silent)}")
        return "each has a submodule"

    # -- Triton on the GPU -------------------------------------------------------------------------------

    def _computes_on_the_gpu(self) -> str:
        self._rig.put_gpu_code()
        self._rig.wait_for_answers(self._rig.kill_triton())
        words = self._rig.computes_with()
        self._result.facts["computes_with"] = words
        if not words:
            raise CheckError("the model did not say what it computes with: see lotabotsctl logs")
        self._on_gpu = not words.startswith("numpy")
        if not self._on_gpu:
            raise NotHereError(words)
        return words

    def _driver_sees_the_process(self) -> str:
        """Its process by number where the driver may tell, else by the memory that is now in use."""
        if not self._on_gpu:
            raise NotHereError("the model runs on the processor")
        before = {item["uuid"]: item["memory_used_mib"] or 0 for item in self._seen["items"]}
        now = self._look(1)["items"]
        processes = [process["pid"] for item in now for process in item["processes"]]
        grown = {item["uuid"]: (item["memory_used_mib"] or 0) - before[item["uuid"]] for item in now}
        if not processes and max(grown.values()) <= 0:
            raise CheckError("no process, and no more memory in use than before")
        return f"processes {processes}, {max(grown.values())} MiB more in use"

    def _start_bare(self) -> str:
        self._rig.start_bare()
        return "over the same model"

    def _answers_are_right(self) -> str:
        for name, target in self._targets():
            for rows in (1, 7, matmul.MAX_ROWS):
                right, said = ask_once(target, rows)
                if not right:
                    raise CheckError(f"{name}, {rows} rows: {said}")
        return f"1, 7 and {matmul.MAX_ROWS} rows, through the gate and bare"

    def _targets(self) -> list[tuple[str, Asked]]:
        return [(GATE, self._rig.through_gate), (BARE, self._rig.bare)]

    def _throughput(self) -> str:
        """Alternating runs of both targets: medians, and the ratio within each run."""
        samples = []
        for run in range(self._runs):
            targets = self._targets() if run % 2 else self._targets()[::-1]
            for rows in (1, matmul.MAX_ROWS):
                for name, target in targets:
                    closed_loop(target, rows=rows, clients=CLIENTS, seconds=0.3)
                    seen = closed_loop(target, rows=rows, clients=CLIENTS, seconds=self._seconds)
                    load = f"{rows} rows"
                    samples.append(
                        Sample(run, name, load, seen.per_second, seen.p50_ms, seen.p99_ms, seen.failed, 0.0)
                    )
        figures = Figures(samples)
        self._result.facts["throughput"] = {
            "clients": CLIENTS,
            "runs": self._runs,
            "seconds": self._seconds,
            "on": "gpu" if self._on_gpu else "processor",
            "samples": [sample.to_dict() for sample in samples],
            "medians": {load: _medians(figures, load) for load in ("1 rows", f"{matmul.MAX_ROWS} rows")},
        }
        if figures.failures():
            raise CheckError("; ".join(figures.failures()))
        ratios = self._result.facts["throughput"]["medians"]
        return ", ".join(f"{load}: gate/bare {found['ratio']}" for load, found in ratios.items())

    def _busy(self) -> str:
        if not self._on_gpu:
            raise NotHereError("the model runs on the processor")
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                closed_loop(self._rig.bare, rows=matmul.MAX_ROWS, clients=CLIENTS, seconds=1.0)

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        try:
            time.sleep(1.0)  # utilisation is of the last second
            busy = max(item["utilisation_percent"] or 0 for item in self._look(3)["items"])
        finally:
            stop.set()
            thread.join(60)
        if not busy:
            raise NotHereError("the driver tells no utilisation, or the matrix is too small to show")
        return f"{busy} %"

    def _comes_back(self) -> str:
        """The supervisor starts a killed Triton again, and answers are right again."""
        seconds = self._rig.wait_for_answers(self._rig.kill_triton())
        self._result.facts["recovery_seconds"] = round(seconds, 2)
        if self._on_gpu and self._rig.computes_with().startswith("numpy"):
            raise CheckError("it came back on the processor")
        return f"right answers {seconds:.1f} s after SIGKILL"

    # -- what only the stand-in can do -------------------------------------------------------------------

    def _gpu_is(self, number: int, words: str) -> None:
        def said() -> bool:
            item = self._rig.ctl("gpu", "list")["items"][number]
            return words in f"{item['health']}: {item['detail']}; {item['hint']}"

        self._rig.until(said, f'"{words}" of GPU {number}', seconds=LOOP_SECONDS)

    def _hang(self, host: Any) -> str:
        host.hang("nvmlDeviceGetTemperature", 3_600_000)
        self._gpu_is(0, "the driver has not answered")
        begun = time.monotonic()
        self._rig.ctl("status")
        spent = time.monotonic() - begun
        right, said = ask_once(self._rig.through_gate, 2)
        host.hang("nvmlDeviceGetTemperature", 0)
        if spent > 10 or not right:
            raise CheckError(f"meanwhile status took {spent:.1f} s, the gate said: {said or 'the product'}")
        self._gpu_is(0, "healthy")
        return "told, while status and the gate went on; well again afterwards"

    def _off_the_bus(self, host: Any) -> str:
        host.xid(self._seen["items"][1]["uuid"], 79)
        host.change(1, off_the_bus=True)
        # The next drill's failure as well, so that one look of the daemon finds both.
        host.change(0, ecc={"corrected": 0, "uncorrected": 2}, processes=[{"pid": 4_711, "memory": 1 << 30}])
        self._gpu_is(1, "systemctl reboot")
        codes = {finding["code"] for finding in self._rig.ctl("doctor")["findings"]}
        if "gpu_unhealthy" not in codes:
            raise CheckError(f"doctor found only {sorted(codes)}")
        return "critical, and doctor names the command"

    def _uncorrectable(self, _host: Any) -> str:
        self._gpu_is(0, "in use by process 4711 (1024 MiB)")
        return "a reset is proposed with who uses the GPU, and not done"


def _medians(figures: Figures, load: str) -> dict[str, float | None]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    found = {"ratio": rounded(figures.ratio(GATE, BARE, load))}
    for target in (GATE, BARE):
        found[f"{target} per second"] = rounded(figures.median(target, load, lambda s: s.per_second))
        found[f"{target} p50 ms"] = rounded(figures.median(target, load, lambda s: s.p50_ms))
        found[f"{target} p99 ms"] = rounded(figures.median(target, load, lambda s: s.p99_ms))
    return found
