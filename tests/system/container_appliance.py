"""A whole appliance on the container runtime, and images made from the processor image: good and broken."""

from __future__ import annotations

import io
import os
import pwd
import re
import signal
import tarfile
from typing import Any

from container_bench import GATE_GROUP, USER
from container_engine import ContainerEngine
from image_build import Saved
from whole_appliance import Appliance

from lotabotsd.foundation.config import load
from lotabotsd.runtime.container import account
from lotabotsd.runtime.container_specification import settings_from

_SITE = "/opt/lotabots/venv/lib/python3.11/site-packages"
_EVERYTHING_TWICE = """
def _doubled(run):
    return lambda *words, **more: [output * 2 for output in run(*words, **more)]
InferenceSession.run = _doubled(InferenceSession.run)
"""
_REFUSES = """#!/bin/sh
if [ "$1" = --help ]; then exec /opt/tritonserver/bin/real --help; fi
echo "tritonserver: unrecognized option '--of-a-broken-image'" >&2
exit 1
"""
RECIPES = {
    "good": ("LABEL lotabots.test=good\n", ""),
    "other-answers": (
        f"USER root\nCOPY file /made\nRUN cat /made >> {_SITE}/onnxruntime/__init__.py\nUSER 65534:65534\n",
        _EVERYTHING_TWICE,
    ),
    "exits": (
        "USER root\nRUN mv /opt/tritonserver/bin/tritonserver /opt/tritonserver/bin/real\n"
        "COPY file /opt/tritonserver/bin/tritonserver\nUSER 65534:65534\n",
        _REFUSES,
    ),
}


class ContainerAppliance(Appliance):
    """`lotabotsd up` with Triton in a container of the tests' own engine."""

    def __init__(self, engine: ContainerEngine, saved: Saved) -> None:
        super().__init__()
        self.engine = engine
        self.saved = saved
        text = self.config.read_text()
        lines = f"""[runtime]
kind = "container"
backend = "python"
image = "{saved.image}"
image_archive = "{saved.archive}"
image_archive_sha256 = "{saved.archive_sha256}"
engine_socket = "{engine.socket}"
user = "{USER}"
memory_bytes = {1 << 30}
shared_memory_bytes = {64 << 20}
max_processes = 512
probe_seconds = 0.25
start_timeout_seconds = 60
drain_seconds = 4
stop_timeout_seconds = 8
upgrade = "beside"
"""
        self.config.write_text(re.sub(r"\[runtime\]\n(?:[a-z_]+ = .*\n)+", lines, text))
        self.directories()
        config = load(self.config)
        os.chown(config.paths.triton, pwd.getpwnam(USER).pw_uid, GATE_GROUP)
        config.paths.triton.chmod(0o2770)
        self.name = settings_from(config, *account(config)).name

    def reload(self, image: str, upgrade: str = "beside") -> None:
        """As an administrator does: write the image, then systemctl reload lotabots-runtime."""
        text = re.sub(r'^image = ".*"$', f'image = "{image}"', self.config.read_text(), flags=re.MULTILINE)
        self.config.write_text(re.sub(r'upgrade = ".*"', f'upgrade = "{upgrade}"', text))
        os.kill(self.pid("runtime"), signal.SIGHUP)

    def serving(self) -> str:
        """The id of the image that serves."""
        return str(self.engine.inspect(self.name)["Image"])

    def run_pid(self) -> int:
        """The process of the Triton that status knows of; 0 for none."""
        return int(self.status()["runtime"]["pid"])

    def containers(self) -> list[str]:
        """The names of all containers."""
        found: list[dict[str, Any]] = self.engine.client.containers(all=True)
        return [each["Names"][0].removeprefix("/") for each in found]

    def stop(self) -> None:
        """Everything, and what the helper left behind."""
        try:
            super().stop()
        finally:
            if self.engine.answers():
                for found in self.engine.client.containers(all=True):
                    self.engine.client.remove_container(found["Id"], force=True)


def make_image(engine: ContainerEngine, base: str, recipe: str) -> str:
    """Build one of RECIPES on an image, without a network; its id."""
    lines, file = RECIPES[recipe]
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text, mode in (("Dockerfile", f"FROM {base}\n{lines}", 0o644), ("file", file, 0o755)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    context.seek(0)
    client = engine.client
    client.timeout = 300
    tag = f"lotabots-test-{recipe}"
    said = [
        str(line)
        for line in client.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            network_mode="none",
            pull=False,
            rm=True,
            decode=True,
        )
        if "error" in line
    ]
    assert not said, said
    return str(engine.inspect_image(tag)["Id"])
