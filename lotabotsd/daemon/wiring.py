"""Put the concrete parts together, in the order in which each needs the ones before it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lotabotsd import __version__
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.receipt_store import ReceiptStore
from lotabotsd.foundation.clock import Clock, month_window
from lotabotsd.foundation.config import Config
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.foundation.identifiers import new_id
from lotabotsd.gpu.bounded import BoundedProbe
from lotabotsd.gpu.probe import choose_probe
from lotabotsd.identity import schema as identity_schema
from lotabotsd.identity.pepper import load_or_create_pepper
from lotabotsd.identity.records import KeyRecord
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.fingerprint import read_components
from lotabotsd.licence.keyring import Anchors, Use, load_anchors
from lotabotsd.licence.store import LicenceStore
from lotabotsd.licence.trust import Trust
from lotabotsd.limits.table import Table, adopt_or_create, create_table, current_boot_id
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.supervisor import Supervisor
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.ledger import Ledger, open_ledger
from lotabotsd.usage.outbox import Outbox

from .acknowledging import Acknowledging, ReportedAt
from .appliance import Appliance
from .bookkeeping import Bookkeeping, keeper_of, settled_in
from .first_start import refuse_torn_state
from .gpus import Gpus
from .health import Health
from .ledger_watch import LedgerWatch
from .models import LiveModels, wanted_of
from .publishing import Publishing
from .readiness import ReadyModels, published_ready
from .reconciling import OwnRequests, Reconciling
from .reports import Reports, pseudonym_secret
from .running_image import RunningImage, receipt_gpus, receipt_image
from .timetable import rule_of

log = logging.getLogger("lotabots.daemon")

_APPLIANCE_PREFIX = "apl_"


def open_appliance(
    config: Config, clock: Clock, *, anchors: Callable[[], Anchors] = load_anchors
) -> Appliance:
    """Open everything; what was opened is closed again when a later part cannot be.

    `anchors` are the package's own but for a rehearsal: a configuration never names them.

    Order: identities, ledger (counted up to now), licence, keys, models. Raises DATABASE_DAMAGED,
    KEYRING_INVALID, FILE_UNREADABLE, FILE_UNWRITABLE, CONFIG_INVALID.
    """
    with ExitStack() as opened:
        appliance = _open(config, clock, opened, anchors())
        appliance.models.allow(appliance.licence.standing().models_live)
        appliance.supervisor.want(wanted_of(appliance.models()))
        return replace(appliance, close=opened.pop_all().close)


def open_gate(appliance: Appliance, *, triton_runs: bool) -> None:
    """Give the gate what it waits for: the policy, then the limits table.

    With `triton_runs` the models that were published as ready stay so until the supervisor has looked:
    restarting the daemon disturbs nobody.
    """
    if triton_runs:
        appliance.ready.carry(published_ready(appliance.config.paths.policy_db))
    appliance.publishing.publish()
    window_id = month_window(appliance.clock.wall_ns())
    used = used_in_month(appliance.ledger, appliance.identity.list_keys(), window_id)
    table = open_table(appliance.config, appliance.publisher, window_id, used, appliance.workers)
    appliance.publishing.announce_in(table)


@dataclass(frozen=True, slots=True)
class _Stores:
    """What survives a restart."""

    pepper: bytes
    identity: IdentityStore
    ledger: Ledger
    ledger_watch: LedgerWatch
    receipts: ReceiptStore
    licence: LicenceStore
    reported_at: ReportedAt
    bookkeeping: Bookkeeping


def _open_stores(config: Config, clock: Clock, opened: ExitStack, anchors: Anchors) -> _Stores:
    """Identities, ledger and licence, with everything counted that the journals hold."""
    paths = config.paths
    refuse_torn_state(paths)
    pepper = load_or_create_pepper(paths.pepper)
    state = open_database(
        paths.state_db,
        application_id=identity_schema.APPLICATION_ID,
        migrations=identity_schema.MIGRATIONS,
    )
    opened.callback(state.close)
    ledger = open_ledger(paths.ledger_db, clock)
    opened.callback(ledger.close)
    receipts = ReceiptStore(
        paths.receipts_db,
        keep_days=config.attestation.receipts_keep_days,
        keep_most=config.attestation.receipts_keep_most,
    )
    opened.callback(receipts.close)
    trust = Trust(paths.licence, anchors)
    acknowledgers = partial(trust.keys_ever, Use.ACKNOWLEDGEMENT)
    reported_at = ReportedAt(ledger, acknowledgers)
    licence = LicenceStore(
        paths.licence,
        anchors,
        clock,
        components=partial(read_components, operator=config.licence.operator_fingerprint),
        reported_ns=reported_at,
        trust=trust,
    )
    bookkeeping = Bookkeeping(
        Drainer(
            paths.journal,
            ledger,
            clock,
            may_end=settled_in(paths.limits_table),
            keep_receipts=keeper_of(receipts),
        ),
        ledger,
        lambda: licence.standing().clock_suspect,
        reserve=paths.state / "reserve",
        reserve_bytes=config.usage.reserve_bytes,
    )
    bookkeeping.drain_and_seal()
    bookkeeping.keep_reserve()
    watch = LedgerWatch(ledger, clock, acknowledgers)
    opened.callback(watch.stop)
    identity = IdentityStore(state, clock, pepper)
    return _Stores(pepper, identity, ledger, watch, receipts, licence, reported_at, bookkeeping)


def _open(config: Config, clock: Clock, opened: ExitStack, anchors: Anchors) -> Appliance:
    rule = rule_of(config.report.schedule)
    stores = _open_stores(config, clock, opened, anchors)
    keyset = Keyset.load_or_create(config.paths.keys, config.paths.receipt_key)
    publisher = Publisher(
        config.paths.policy_db, slots=config.limits.slots, lease_seconds=config.gate.policy_lease_seconds
    )
    opened.callback(publisher.close)
    gpus = Gpus(BoundedProbe(choose_probe))
    opened.callback(gpus.close)
    models = LiveModels(config, gpus.count)
    helper = HelperClient(
        config.paths.helper_socket, stop_timeout_seconds=config.runtime.stop_timeout_seconds
    )
    reconciling = _reconciling(config, stores, helper, models, clock)
    supervisor = _supervisor(config, helper, reconciling, clock)
    ready = ReadyModels(lambda: supervisor.seen, supervisor.ready_models, models)
    appliance_id = appliance_id_in(config.paths.state)
    issuer = _issuer(config, keyset, clock)
    image = RunningImage(helper.ensure, clock)

    def instance() -> InstanceFacts:
        running = receipt_image(image.of(supervisor.seen.run_id))
        gpus = receipt_gpus(config.runtime)
        return InstanceFacts(appliance_id, __version__, issuer.ueid, image=running, gpus=gpus)

    source = _policy_source(stores, models, ready, issuer, instance)
    return Appliance(
        config=config,
        clock=clock,
        appliance_id=appliance_id,
        started_at_ns=clock.wall_ns(),
        workers=config.gate.worker_count(os.cpu_count() or 1),
        identity=stores.identity,
        licence=stores.licence,
        ledger=stores.ledger,
        ledger_watch=stores.ledger_watch,
        bookkeeping=stores.bookkeeping,
        keyset=keyset,
        issuer=issuer,
        receipts=stores.receipts,
        publisher=publisher,
        publishing=Publishing(source, publisher, clock),
        supervisor=supervisor,
        helper=helper,
        image=image,
        models=models,
        ready=ready,
        gpus=gpus,
        reconciling=reconciling,
        reports=_reports(config, stores, reconciling, keyset, clock, appliance_id),
        acknowledging=_acknowledging(config, stores, clock, appliance_id),
        report_rule=rule,
        health=Health(clock),
        close=lambda: None,
    )


def _policy_source(
    stores: _Stores,
    models: LiveModels,
    ready: ReadyModels,
    issuer: Issuer,
    instance: Callable[[], InstanceFacts],
) -> Callable[[], PolicySource]:
    """What the policy is made of, looked up anew for each publication."""

    def source() -> PolicySource:
        names = ready()
        return PolicySource(
            keys=stores.identity.grants(),
            standing=stores.licence.standing().to_dict(),
            models=[replace(m.facts, ready=m.name in names) for m in models() if m.facts is not None],
            jwks=issuer.jwks,
            instance=instance(),
            token_hash=issuer.last,
        )

    return source


def _issuer(config: Config, keyset: Keyset, clock: Clock) -> Issuer:
    attestation = config.attestation
    return Issuer(
        keyset,
        clock,
        config.paths.keys,
        algorithm=attestation.algorithm,
        token_seconds=attestation.token_seconds,
    )


def _reports(
    config: Config,
    stores: _Stores,
    reconciling: Reconciling,
    keyset: Keyset,
    clock: Clock,
    appliance_id: str,
) -> Reports:
    return Reports(
        stores.ledger,
        reconciling,
        stores.ledger_watch.refuse_damage,
        stores.bookkeeping.drain_and_seal,
        Outbox(config.paths.outbox),
        keyset,
        stores.identity,
        stores.licence,
        clock,
        appliance_id,
        pseudonym_secret(stores.pepper) if config.report.pseudonyms else None,
    )


def _acknowledging(config: Config, stores: _Stores, clock: Clock, appliance_id: str) -> Acknowledging:
    return Acknowledging(
        stores.ledger,
        stores.ledger_watch,
        Outbox(config.paths.outbox),
        stores.licence,
        stores.reported_at,
        clock,
        appliance_id,
        config.usage.retention_days,
    )


def _reconciling(
    config: Config, stores: _Stores, helper: HelperClient, models: LiveModels, clock: Clock
) -> Reconciling:
    load_seconds = config.runtime.start_timeout_seconds
    return Reconciling(
        stores.ledger,
        stores.bookkeeping.drain_and_seal,
        stores.bookkeeping.problems,
        helper,
        lambda secret: (
            TritonClient(config.paths.triton_http, secret, load_timeout_seconds=load_seconds).counters
        ),
        models,
        clock,
    )


def _supervisor(config: Config, helper: HelperClient, reconciling: Reconciling, clock: Clock) -> Supervisor:
    load_seconds = config.runtime.start_timeout_seconds

    def client(path: Path, run: Callable[[], str], secret: Callable[[], str]) -> TritonClient:
        asking = OwnRequests(reconciling, run)
        return TritonClient(path, secret, load_timeout_seconds=load_seconds, asking=asking)

    supervisor = Supervisor(
        helper,
        lambda secret: client(config.paths.triton_http, lambda: supervisor.run_id, secret),
        clock,
        start_timeout_seconds=load_seconds,
        beside=lambda run_id, secret: client(config.paths.triton_beside(run_id), lambda: run_id, secret),
        notes=config.paths.image_notes,
    )
    return supervisor


def used_in_month(ledger: Ledger, keys: Sequence[KeyRecord], window_id: int) -> dict[tuple[str, str], int]:
    """Charged inferences of a quota month by (kind, id) of scope; the licence's id is "".

    The ledger knows no teams. A key never changes its team, so a team's month is that of its keys, the
    revoked ones too.
    """
    used = ledger.month_usage(window_id)
    for key in keys:
        if key.team_id is not None:
            team = ("team", key.team_id)
            used[team] = used.get(team, 0) + used.get(("key", key.key_id), 0)
    return used


def open_table(
    config: Config, publisher: Publisher, window_id: int, used: Mapping[tuple[str, str], int], workers: int
) -> Table:
    """The limits table of this boot: adopted where it is valid, else made and filled with the month's use.

    A policy.db that had to be made anew gave its scopes other slots, so the table is made anew as well.
    """
    fill = [
        (
            place.slot,
            place.tag,
            window_id,
            used.get((kind, "" if kind == "licence" else name), 0),
        )
        for (kind, name), place in publisher.places().items()
    ]
    make = create_table if publisher.rebuilt else adopt_or_create
    kept = make(
        config.paths.limits_table,
        slots=config.limits.slots,
        workers=workers,
        boot_id=current_boot_id(),
        fill=fill,
    )
    log.info("limits table %s", "adopted" if kept else "made")
    return Table.open(config.paths.limits_table, None)


def appliance_id_in(directory: Path) -> str:
    """The appliance's name, made at its first start. Raises FILE_UNREADABLE for a damaged file."""
    path = directory / "appliance_id"
    if not path.exists():
        write_atomically(path, new_id("apl").encode() + b"\n", mode=0o644)
    text = read_bounded(path, 64).decode(errors="replace").strip()
    if not text.startswith(_APPLIANCE_PREFIX) or not text[len(_APPLIANCE_PREFIX) :].isalnum():
        raise LotaBotsError(
            Code.FILE_UNREADABLE,
            f"{path} holds no appliance id",
            hint="put your own copy of that file in its place",
        )
    return text
