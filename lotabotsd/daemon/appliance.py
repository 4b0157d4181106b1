"""Everything that one daemon holds, as concrete parts with their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apscheduler.triggers.cron import CronTrigger

from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.receipt_store import ReceiptStore
from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.config import Config
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.store import LicenceStore
from lotabotsd.policy.publish import Publisher
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.supervisor import Supervisor
from lotabotsd.usage.ledger import Ledger

from .acknowledging import Acknowledging
from .bookkeeping import Bookkeeping
from .gpus import Gpus
from .health import Health
from .ledger_watch import LedgerWatch
from .models import LiveModels
from .publishing import Publishing
from .readiness import ReadyModels
from .reconciling import Reconciling
from .reports import Reports
from .running_image import RunningImage


@dataclass(frozen=True, slots=True)
class Appliance:
    """The parts of a running daemon; made by `wiring`, used by rounds, status and the control API."""

    config: Config
    clock: Clock
    appliance_id: str
    started_at_ns: int  # wall time
    workers: int  # of the gate
    identity: IdentityStore
    licence: LicenceStore
    ledger: Ledger
    ledger_watch: LedgerWatch
    bookkeeping: Bookkeeping
    keyset: Keyset
    issuer: Issuer
    receipts: ReceiptStore
    publisher: Publisher
    publishing: Publishing
    supervisor: Supervisor
    helper: HelperClient
    image: RunningImage
    models: LiveModels
    ready: ReadyModels
    gpus: Gpus
    reconciling: Reconciling
    reports: Reports
    acknowledging: Acknowledging
    report_rule: CronTrigger
    health: Health
    close: Callable[[], None]
