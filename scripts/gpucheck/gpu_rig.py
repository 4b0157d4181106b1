"""The appliance whose one model computes on the GPU, beside a bare Triton over the same model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matmul
from asking import Asked, ask_once
from rig import Process, Rig, RigError, answers

CODE = Path(__file__).resolve().parent / "gpu_model.py"
COMPUTES_WITH = "gpu-check computes with "
AGAIN_SECONDS = 120.0


class GpuRig(Rig):
    """A rig with the matrix model alone."""

    models = (matmul.NAME,)

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder, run)
        self.gate_url = ""

    def _packages(self) -> None:
        for path, data in matmul.files().items():
            file = self.folder / "packages" / matmul.NAME / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    def _bare(self) -> None:
        """Later: it must load the code for the GPU, which is not there at the start."""

    def start_bare(self) -> None:
        """Start the Triton to compare with. Raises RigError."""
        super()._bare()

    def start_gate(self) -> Process:
        """Start the gate. Raises RigError."""
        process, self.gate_url = self.gate("gate", workers=1, durability="process")
        self._processes.append(process)
        return process

    @property
    def through_gate(self) -> Asked:
        """The gate, with the key."""
        return Asked(self.gate_url, {"Authorization": f"Bearer {self.key}"})

    @property
    def bare(self) -> Asked:
        """Triton alone."""
        return Asked(self.bare_url, {})

    def put_gpu_code(self) -> None:
        """Replace the code of the live model; Triton takes it at its next start."""
        shutil.copyfile(CODE, self.folder / "state" / "models" / "live" / matmul.NAME / "1" / "model.py")

    def kill_triton(self) -> int:
        """SIGKILL to Triton; which process that was. Raises RigError when it is not running."""
        pid = int(self.ctl("status")["runtime"]["pid"])
        if not pid:
            raise RigError("Triton is not running")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_answers(self, other_than_pid: int) -> float:
        """How long until another Triton answers right through the gate, in seconds. Raises RigError."""
        begun = time.monotonic()
        said = [""]

        def right() -> bool:
            found, said[0] = ask_once(self.through_gate, 2)
            return found

        self.until(lambda: self.ctl("status")["runtime"]["pid"] not in (0, other_than_pid), "another Triton")
        self.until(right, "a right answer", lambda: said[0])
        self.until(lambda: answers(self.gate_url, "/readyz"), "the gate's readiness")
        return time.monotonic() - begun

    def until(
        self,
        holds: Callable[[], bool],
        what: str,
        said: Callable[[], str] = lambda: "",
        seconds: float = AGAIN_SECONDS,
    ) -> None:
        """Wait for a condition, with a deadline. Raises RigError."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise RigError(f"{what} did not come within {seconds:g} s {said()}")
            time.sleep(0.05)  # a poll with a deadline

    def ctl(self, *words: str) -> Any:
        """What lotabotsctl says as JSON. Raises RigError."""
        done = self._execute("lotabotsctl", *words, "--json")
        if not done.stdout:
            raise RigError(f"lotabotsctl {' '.join(words)}: {done.stderr}")
        return json.loads(done.stdout)

    def ctl_text(self, *words: str) -> str:
        """What lotabotsctl prints. Raises RigError."""
        return self._must("lotabotsctl", *words)

    def computes_with(self) -> str:
        """What the newest model said that it computes with."""
        lines = [line for line in self.ctl("logs") if COMPUTES_WITH in line]
        return lines[-1].partition(COMPUTES_WITH)[2] if lines else ""
