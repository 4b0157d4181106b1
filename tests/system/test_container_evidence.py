"""A whole appliance with Triton in a container: what it signs names the image that really runs."""

from __future__ import annotations

import base64
import json
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_bench import GATE_GROUP, USER
from container_engine import ContainerEngine
from gate_clients import PREDICT
from image_build import Saved
from whole_appliance import Appliance, load_pages, running_appliance

from lotabotsd.attestation.verify import verify_receipt

pytestmark = pytest.mark.required


@pytest.fixture
def contained(engine: ContainerEngine, image: Saved) -> Iterator[Appliance]:
    """`lotabotsd up` whose helper starts Triton in a container."""
    for appliance in running_appliance(Appliance()):
        lines = [
            'kind = "container"',
            'backend = "python"',
            f'image = "{image.image}"',
            f'image_archive = "{image.archive}"',
            f'image_archive_sha256 = "{image.archive_sha256}"',
            f'engine_socket = "{engine.socket}"',
            f'user = "{USER}"',
            "memory_bytes = 2147483648",
            "shared_memory_bytes = 67108864",
        ]
        text = appliance.config.read_text().replace("[runtime]\n", "\n".join(["[runtime]", *lines, ""]))
        appliance.config.write_text(text)
        appliance.directories()
        sockets = appliance.triton_http.parent
        os.chown(sockets, pwd.getpwnam(USER).pw_uid, GATE_GROUP)
        sockets.chmod(0o2770)
        try:
            appliance.start()
            yield appliance.ready()
        finally:
            appliance.stop()
            for found in engine.client.containers(all=True):
                engine.client.remove_container(found["Id"], force=True)


def claims(token: str) -> Any:
    """The payload of a JWS."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_token_and_receipt_name_the_image_that_runs(
    contained: Appliance, engine: ContainerEngine, image: Saved, tmp_path: Path
) -> None:
    (running,) = engine.client.containers()
    assert engine.inspect(running["Id"])["Image"] == image.image
    contained.people()
    key = contained.key("pages")
    page = load_pages().write_pages(tmp_path)[90].read_bytes()
    answer = contained.ask("POST", PREDICT, key, page, Content_Type="image/png", Lotabots_Receipt="1")
    assert answer.status == 200, answer.body
    receipt = answer.headers["lotabots-receipt"]
    stated = claims(receipt)["x-lotabots-receipt"]
    assert (stated["image"], "gpus" in stated) == (image.image, False)
    jwks = contained.ask("GET", "/.well-known/jwks.json").json
    verdict = verify_receipt(receipt, jwks, now=int(time.time()), request=page, response=answer.body)
    assert verdict.valid, verdict.checks
    token = contained.ask("POST", "/v1/attest", key, b"{}", Content_Type="application/json").json["token"]
    runtime = claims(token)["submods"]["runtime"]["x-lotabots-runtime"]
    named = {"reference": image.image, "configuration": image.image}
    assert runtime == {"kind": "container", "running": True, "image": named}
