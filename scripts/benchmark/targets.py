"""What is measured: how each target is started, where it listens, and which loads it gets."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rig import MODEL, Process, Rig, answers, cpu_seconds, free_port

PEERS = Path(__file__).resolve().parent / "peers"
SMALL, TENSOR, ONE, HALF, IMAGE = "small", "tensor", "one client", "half load", "image"
READY_SECONDS = 60.0


@dataclass(slots=True)
class Running:
    """A target that answers."""

    url: str
    headers: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Processor time of what stands in front of Triton, so far."""
        return sum(cpu_seconds(process.pid) for process in self.processes)

    def stop(self) -> None:
        """End what was started for this target."""
        for process in reversed(self.processes):
            process.stop()


@dataclass(frozen=True, slots=True)
class Target:
    """One column of the comparison."""

    name: str
    loads: tuple[str, ...]
    start: Callable[[], Running]
    peer: bool = False  # measured only with --peers


class Targets:
    """Starts each target over one rig."""

    def __init__(self, rig: Rig, scratch: Path, environments: Path) -> None:
        self._rig = rig
        self._scratch = scratch
        self._environments = environments
        self._key = {"Authorization": f"Bearer {rig.key}"}

    def all(self, *, with_peers: bool) -> list[Target]:
        """In the order of the first run; later runs begin elsewhere."""
        latency = (SMALL, TENSOR, ONE, HALF)
        found = [
            Target("bare Triton", (*latency, IMAGE), self._bare),
            Target("nginx proxy", latency, self._nginx),
            Target("gate, process, 1 worker", (*latency, IMAGE), lambda: self._gate("process", 1)),
            Target(
                "gate, process, 1 worker, receipts",
                (SMALL, TENSOR),
                lambda: self._gate("process", 1, receipts=True),
            ),
            Target(
                "gate, power, 1 worker, receipts", (SMALL,), lambda: self._gate("power", 1, receipts=True)
            ),
            Target("gate, power, 1 worker", latency, lambda: self._gate("power", 1)),
            Target("gate, process, 2 workers", (SMALL, TENSOR), lambda: self._gate("process", 2)),
            Target("gate, power, 2 workers", (SMALL,), lambda: self._gate("power", 2)),
            Target("nginx auth_request", (SMALL,), self._nginx_auth),
            Target("FastAPI + httpx", (SMALL,), self._fastapi),
            Target("Envoy", (SMALL,), self._envoy, peer=True),
            Target("KServe transformer", (SMALL,), self._kserve, peer=True),
            Target("LiteLLM pass-through", (SMALL,), self._litellm, peer=True),
        ]
        return [target for target in found if with_peers or not target.peer]

    def gate_for_samples(self, samples: Path) -> Running:
        """A gate whose one worker writes down where it spends its time."""
        sampler = Path(__file__).resolve().parent / "sampler"
        changed = {"PYTHONPATH": str(sampler), "BENCH_SAMPLES": str(samples)}
        kept = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        try:
            return self._gate("process", 1)
        finally:
            for name, value in kept.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def _bare(self) -> Running:
        return Running(self._rig.bare_url, {})

    def _gate(self, durability: str, workers: int, *, receipts: bool = False) -> Running:
        process, url = self._rig.gate("gate", workers=workers, durability=durability)
        headers = {**self._key, "Lotabots-Receipt": "1"} if receipts else self._key
        return Running(url, headers, [process])

    def _nginx(self) -> Running:
        """Over the same Unix socket as the gate: nothing but a proxy with kept connections."""
        return self._nginx_with("nginx", "")

    def _nginx_auth(self) -> Running:
        auth, port = self._uvicorn("auth_server")
        extra = (
            "location = /auth { internal; proxy_pass http://auth; proxy_pass_request_body off; "
            'proxy_http_version 1.1; proxy_set_header Content-Length ""; proxy_set_header Connection ""; }'
        )
        running = self._nginx_with("nginx-auth", extra, auth_port=port)
        running.processes.append(auth)
        return running

    def _nginx_with(self, name: str, extra: str, auth_port: int = 0) -> Running:
        port = free_port()
        auth = f"upstream auth {{ server 127.0.0.1:{auth_port}; keepalive 64; }}" if auth_port else ""
        ask = "auth_request /auth;" if auth_port else ""
        config = self._scratch / f"{name}.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {self._scratch}/{name}.pid; error_log stderr crit;\n"
            f"{'user root;' if os.geteuid() == 0 else ''} events {{ worker_connections 2048; }}\n"
            "http { access_log off; keepalive_requests 1000000000; client_max_body_size 65m;\n"
            "client_body_buffer_size 1m; proxy_buffers 16 64k;\n"
            f"upstream triton {{ server unix:{self._rig.triton_socket}; keepalive 64;\n"
            f"keepalive_requests 1000000000; }} {auth}\n"
            f"server {{ listen 127.0.0.1:{port}; {extra}\n"
            f"location / {{ {ask} proxy_pass http://triton; proxy_http_version 1.1;\n"
            'proxy_set_header Connection ""; } } }\n'
        )
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
        process = Process([program, "-c", str(config)], self._scratch / f"{name}.log")
        return self._ready(Running(f"http://127.0.0.1:{port}", self._key, [process]), name)

    def _fastapi(self) -> Running:
        process, port = self._uvicorn("fastapi_httpx")
        running = Running(f"http://127.0.0.1:{port}", self._key, [process])
        process.wait_until(lambda: answers(running.url, "/docs"), "FastAPI's start", READY_SECONDS)
        return running

    def _uvicorn(self, module: str) -> tuple[Process, int]:
        port = free_port()
        command = [
            *(str(self._environments / "base" / "bin" / "uvicorn"), f"{module}:app", "--app-dir", str(PEERS)),
            *("--port", str(port), "--no-access-log", "--log-level", "warning"),
        ]
        process = Process(command, self._scratch / f"{module}.log", env=self._environment(port))
        process.wait_until(lambda: self._listens(port), f"the start of {module}", READY_SECONDS)
        return process, port

    def _envoy(self) -> Running:
        port = free_port()
        config = self._scratch / "envoy.yaml"
        config.write_text(
            (PEERS / "envoy.yaml")
            .read_text()
            .replace("@PORT@", str(port))
            .replace("@KEY@", self._rig.key)
            .replace("@SOCKET@", str(self._rig.triton_socket))
        )
        program = str(self._environments / "envoy" / "bin" / "envoy")
        command = [program, "-c", str(config), "--concurrency", "1", "--log-level", "error"]
        command += ["--disable-hot-restart"]
        process = Process(command, self._scratch / "envoy.log")
        return self._ready(Running(f"http://127.0.0.1:{port}", self._key, [process]), "Envoy")

    def _kserve(self) -> Running:
        port = free_port()
        program = str(self._environments / "kserve" / "bin" / "python")
        command = [program, str(PEERS / "kserve_transformer.py"), "--http_port", str(port)]
        process = Process(command, self._scratch / "kserve.log", env=self._environment(port))
        process.wait_until(lambda: self._listens(port), "KServe's start", READY_SECONDS)
        return Running(f"http://127.0.0.1:{port}", self._key, [process])

    def _litellm(self) -> Running:
        """Its virtual keys need a database: there is the master key alone, and no limits."""
        port = free_port()
        path = f"/v2/models/{MODEL}/infer"
        config = self._scratch / "litellm.yaml"
        config.write_text(
            "general_settings:\n  master_key: sk-bench\n  pass_through_endpoints:\n"
            f'    - path: "{path}"\n      target: "{self._rig.bare_url}{path}"\n      headers: {{}}\n'
        )
        program = str(self._environments / "litellm" / "bin" / "litellm")
        command = [program, "--config", str(config), "--port", str(port), "--telemetry", "False"]
        process = Process(command, self._scratch / "litellm.log", env=self._environment(port))
        process.wait_until(lambda: self._listens(port), "LiteLLM's start", 2 * READY_SECONDS)
        return Running(f"http://127.0.0.1:{port}", {"Authorization": "Bearer sk-bench"}, [process])

    def _environment(self, port: int) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._scratch),
            "BENCH_KEY": self._rig.key,
            "BENCH_UPSTREAM": self._rig.bare_url,
            "BENCH_PORT": str(port),
            "BENCH_MODEL": MODEL,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }

    def _ready(self, running: Running, name: str) -> Running:
        running.processes[0].wait_until(
            lambda: answers(running.url, "/v2/health/ready", self._key), f"{name}: an answer", READY_SECONDS
        )
        return running

    @staticmethod
    def _listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
