"""The control API's and the attest socket's view of the appliance."""

from __future__ import annotations

import asyncio
import os

from lotabotsd.attestation.receipt_store import KeptReceipt, receipt_id_of
from lotabotsd.attestation.request import (
    ANY_AUDIENCE,
    AttestRequest,
    FoundReceipt,
    Issued,
    ReceiptRequest,
)
from lotabotsd.attestation.service import AttestService
from lotabotsd.control.peers import SOURCE, Admins, describe
from lotabotsd.control.rooms import Rooms
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import Peer, group_id
from lotabotsd.identity.audit import REFUSED
from lotabotsd.identity.records import Actor, IdentityCaps

from .activating import licence_request
from .appliance import Appliance
from .billing import preview_bill
from .evidence import Measurer, collect, licence_evidence, runtime_evidence
from .listeners import gate_uids
from .metrics import Metrics
from .status import models_of, status_of

MAX_REFUSALS = 1_000  # told in the audit trail until the next start: nobody fills the disk by being refused


def rooms_of(appliance: Appliance, attester: Attester) -> Rooms:
    """Everything that the control API needs."""
    return Rooms(
        clock=appliance.clock,
        admins=Admins(os.geteuid(), group_id(appliance.config.control.group)),
        identity=appliance.identity,
        licence=appliance.licence,
        licence_request=lambda note: licence_request(appliance, note),
        ledger=appliance.ledger,
        verify_ledger=appliance.ledger_watch.look,
        begin_verification=appliance.ledger_watch.begin,
        verification=appliance.ledger_watch.walking,
        reconciliation=appliance.reconciling.value,
        keyset=appliance.keyset,
        caps=lambda: caps_of(appliance),
        publish=appliance.publishing.publish_and_wait,
        status=lambda: status_of(appliance),
        metrics=Metrics(appliance, lambda: status_of(appliance)).text,
        count_usage=appliance.bookkeeping.drain_and_seal,
        models=lambda: models_of(appliance),
        gpus=appliance.gpus.value,
        runtime_lines=appliance.helper.logs,
        attest=attester.issue,
        receipt=lambda receipt_id: find_receipt(appliance, receipt_id).to_dict(),
        preview=appliance.reports.preview,
        export=appliance.reports.export,
        reports=appliance.reports.written,
        report_bytes=appliance.reports.read,
        bill=lambda month: preview_bill(appliance, month),
        look_at_acknowledgement=appliance.acknowledging.look,
        acknowledge=appliance.acknowledging.accept,
        duty=lambda: appliance.licence.duty().to_dict(),
        purgeable=appliance.acknowledging.purgeable,
        purge=appliance.acknowledging.purge,
        refused=Refusals(appliance),
    )


def caps_of(appliance: Appliance) -> IdentityCaps:
    """How many organisations and members the licence allows now."""
    standing = appliance.licence.standing()
    return IdentityCaps(organisations=standing.organisations, members=standing.members)


def find_receipt(appliance: Appliance, receipt_id: str, organisation_id: str | None = None) -> KeptReceipt:
    """A receipt; with `organisation_id` only one of theirs. Raises NOT_FOUND, VALUE_INVALID."""
    found = appliance.receipts.find(receipt_id_of(receipt_id))
    if found is None or organisation_id not in (None, found.organisation_id):
        raise LotaBotsError(
            Code.NOT_FOUND,
            "no such receipt is kept",
            hint="ask a moment after the answer; check the id, and the key's organisation",
        )
    return found


def attest_service(appliance: Appliance, attester: Attester) -> AttestService:
    """The service for the gate: tokens and receipts."""
    uids = gate_uids()

    async def issue(request: AttestRequest) -> Issued:
        return await asyncio.to_thread(attester.issue, request.nonce, request.audience)

    async def find(request: ReceiptRequest) -> FoundReceipt:
        found = await asyncio.to_thread(find_receipt, appliance, request.receipt_id, request.organisation_id)
        return FoundReceipt(found.text)

    return AttestService(issue, find, lambda peer: peer.uid in uids)


class Attester:
    """Looks at the appliance and signs what it saw. May be used from several threads."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._measurer = Measurer(appliance.config.paths.live_models)

    def issue(self, nonce: str | None, audience: str | None) -> Issued:
        """A token about this moment. Raises NONCE_INVALID, VALUE_INVALID, DISK_FULL, FILE_UNWRITABLE."""
        appliance = self._appliance
        standing, seen = appliance.licence.standing(), appliance.supervisor.seen
        evidence = collect(
            appliance.clock,
            runtime_evidence(appliance.config.runtime, seen, appliance.image.of(seen.run_id)),
            appliance.models(),
            self._measurer,
            licence_evidence(standing, appliance.config.paths.licence),
            appliance.gpus.evidence(),
            appliance.gpus.source,
            development=standing.development,
        )
        issued = appliance.issuer.issue(evidence, nonce, audience or ANY_AUDIENCE)
        appliance.publisher.set_token_hash(appliance.issuer.last)
        return issued


class Refusals:
    """Writes refused callers of the control socket into the audit trail, a bounded number of them."""

    def __init__(self, appliance: Appliance) -> None:
        self._audit = appliance.identity.audit
        self._told = 0

    def __call__(self, peer: Peer, request: str) -> None:
        """Tell of one refused request."""
        self._told += 1
        if self._told <= MAX_REFUSALS:
            self._audit.record(Actor(describe(peer), SOURCE), "control.refused", request, None, None, REFUSED)
