"""The stand-in has the binary interface that pynvml calls: each answer arrives in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.required

PROGRAM = """
import json, sys
import pynvml as n

def asked(function, *arguments):
    try:
        return function(*arguments)
    except n.NVMLError as error:
        return {"error": error.value, "text": str(error)}

before = asked(n.nvmlDeviceGetCount)
n.nvmlInit()
first, second = (n.nvmlDeviceGetHandleByIndex(i) for i in (0, 1))
second_uuid, second_bus = sys.argv[1:]
part = n.nvmlDeviceGetMigDeviceHandleByIndex(first, 1)
old, new = n.nvmlDeviceGetMemoryInfo(first), n.nvmlDeviceGetMemoryInfo(first, n.nvmlMemory_v2)
attributes = n.nvmlDeviceGetAttributes_v2(part)
events = n.nvmlEventSetCreate()
n.nvmlDeviceRegisterEvents(second, n.nvmlEventTypeXidCriticalError, events)
event = n.nvmlEventSetWait_v2(events, 0)
pci = n.nvmlDeviceGetPciInfo(second)
print(json.dumps({
    "before": before,
    "nvml": n.nvmlSystemGetNVMLVersion(),
    "by_uuid": n.nvmlDeviceGetSerial(n.nvmlDeviceGetHandleByUUID(second_uuid)),
    "by_pci": n.nvmlDeviceGetSerial(n.nvmlDeviceGetHandleByPciBusId(second_bus)),
    "nobody": asked(n.nvmlDeviceGetHandleByUUID, "GPU-none"),
    "beyond": asked(n.nvmlDeviceGetHandleByIndex, 2),
    "memory": [old.total, old.used, old.free, new.reserved, new.used, new.free],
    "ecc": [n.nvmlDeviceGetTotalEccErrors(first, kind, since) for since in (0, 1) for kind in (0, 1)],
    "rows": n.nvmlDeviceGetRemappedRows(first),
    "clocks": [n.nvmlDeviceGetClockInfo(first, kind) for kind in range(4)],
    "reasons": n.nvmlDeviceGetCurrentClocksThrottleReasons(first),
    "thresholds": [n.nvmlDeviceGetTemperatureThreshold(first, which) for which in (0, 1)],
    "mig": [n.nvmlDeviceGetMigMode(first), n.nvmlDeviceGetMaxMigDeviceCount(first)],
    "part": [n.nvmlDeviceGetGpuInstanceId(part), n.nvmlDeviceGetName(part), attributes.memorySizeMB],
    "whole": n.nvmlDeviceGetSerial(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)),
    "no_part": asked(n.nvmlDeviceGetMigDeviceHandleByIndex, first, 2),
    "event": [n.nvmlDeviceGetUUID(event.device), event.eventType, event.eventData],
    "no_event": asked(n.nvmlEventSetWait_v2, events, 20),
    "pci": [pci.busId, pci.busIdLegacy, pci.domain, pci.bus, pci.device],
    "strange": str(n.NVMLError(77)),
}, default=lambda value: value.decode()))
n.nvmlShutdown()
"""


def test_every_structure_and_every_error_arrives_as_pynvml_reads_it(host: Any, nvml: Any) -> None:
    host.change(
        0,
        mig=1,
        mig_devices=[nvml.mig_device(0, 7), nvml.mig_device(0, 8)],
        ecc={"corrected": 1, "uncorrected": 2},
        ecc_lifetime={"corrected": 3, "uncorrected": 1 << 40},
        remapped_rows={"corrected": 5, "uncorrected": 6, "pending": 1, "failed": 0},
        clocks_event_reasons=1 << 33,
    )
    host.xid(nvml.uuid(1), 79)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, nvml.uuid(1), "00000000:18:00.0"],
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    gib = 1 << 30
    assert json.loads(done.stdout) == {
        "before": {"error": 1, "text": "Uninitialized"},
        "nvml": "13.580.95.05",
        "by_uuid": "1650423000001",
        "by_pci": "1650423000001",
        "nobody": {"error": 6, "text": "Not Found"},
        "beyond": {"error": 2, "text": "Invalid Argument"},
        "memory": [80 * gib, 4 * gib, 76 * gib, gib, 3 * gib, 76 * gib],
        "ecc": [1, 2, 3, 1 << 40],
        "rows": [5, 6, 1, 0],
        "clocks": [1_980, 1_980, 2_619, 1_545],
        "reasons": 1 << 33,
        "thresholds": [92, 87],
        "mig": [[1, 1], 7],
        "part": [8, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9_984],
        "whole": "1650423000000",
        "no_part": {"error": 6, "text": "Not Found"},
        "event": [nvml.uuid(1), 8, 79],
        "no_event": {"error": 10, "text": "Timeout"},
        "pci": ["00000000:18:00.0", "0000:18:00.0", 0, 0x18, 0],
        "strange": "stand-in error 77",
    }


def test_a_file_that_is_no_json_ends_the_process_loudly(host: Any, tmp_path: Any) -> None:
    (tmp_path / "gpus.json").write_text('{"gpus": [}')
    done = subprocess.run(
        [sys.executable, "-c", "import pynvml; pynvml.nvmlInit()"],
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "is no JSON" in done.stderr
