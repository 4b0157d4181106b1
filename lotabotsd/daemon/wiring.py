"""Put the concrete parts together, in the order in which each needs the ones before it."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lotabotsd import __version__
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.foundation.clock import Clock, month_window
from lotabotsd.foundation.config import Config
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.foundation.identifiers import new_id
from lotabotsd.identity import schema as identity_schema
from lotabotsd.identity.pepper import load_or_create_pepper
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.fingerprint import read_components
from lotabotsd.licence.keyring import load_anchors
from lotabotsd.licence.store import LicenceStore
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

from .appliance import Appliance
from .bookkeeping import Bookkeeping
from .gpus import Gpus
from .health import Health
from .models import LiveModels, wanted_of
from .publishing import Publishing
from .reports import Reports, pseudonym_secret
from .timetable import rule_of

log = logging.getLogger("lotabots.daemon")

_APPLIANCE_PREFIX = "apl_"


def open_appliance(config: Config, clock: Clock) -> Appliance:
    """Open everything; what was opened is closed again when a later part cannot be.

    Order: identities, ledger (counted up to now), licence, keys, models, policy, limits table. Raises
    DATABASE_DAMAGED, KEYRING_INVALID, FILE_UNREADABLE, FILE_UNWRITABLE, CONFIG_INVALID.
    """
    with ExitStack() as opened:
        appliance = _open(config, clock, opened)
        appliance.models.allow(appliance.licence.standing().models_live)
        appliance.supervisor.want(wanted_of(appliance.models()))
        appliance.publishing.publish()
        table = open_table(config, clock, appliance.publisher, appliance.ledger, appliance.workers)
        opened.callback(table.close)
        appliance.publishing.announce_in(table)
        return replace(appliance, close=opened.pop_all().close)


def _open(config: Config, clock: Clock, opened: ExitStack) -> Appliance:
    paths = config.paths
    rule = rule_of(config.report.schedule)
    pepper = load_or_create_pepper(paths.pepper)
    state = open_database(
        paths.state_db,
        application_id=identity_schema.APPLICATION_ID,
        migrations=identity_schema.MIGRATIONS,
    )
    opened.callback(state.close)
    identity = IdentityStore(state, clock, pepper)
    ledger = open_ledger(paths.ledger_db, clock)
    opened.callback(ledger.close)
    licence = LicenceStore(paths.licence, load_anchors(), clock, components=read_components())
    drainer = Drainer(paths.journal, ledger, clock)
    bookkeeping = Bookkeeping(
        drainer,
        ledger,
        lambda: licence.standing().clock_suspect,
        reserve=paths.state / "reserve",
        reserve_bytes=config.usage.reserve_bytes,
    )
    bookkeeping.drain_and_seal()
    bookkeeping.keep_reserve()
    keyset = Keyset.load_or_create(paths.keys)
    publisher = Publisher(
        paths.policy_db, slots=config.limits.slots, lease_seconds=config.gate.policy_lease_seconds
    )
    opened.callback(publisher.close)
    gpus = Gpus()
    models = LiveModels(config, gpus.count)
    supervisor = _supervisor(config, clock)
    appliance_id = appliance_id_in(paths.state)
    health = Health(clock)

    def source() -> PolicySource:
        ready = supervisor.ready_models()
        facts = [replace(m.facts, ready=m.name in ready) for m in models() if m.facts is not None]
        return PolicySource(
            keys=identity.grants(),
            standing=licence.standing().to_dict(),
            models=facts,
            jwks=keyset.jwks(config.attestation.algorithm),
            instance=InstanceFacts(appliance_id, __version__),
        )

    return Appliance(
        config=config,
        clock=clock,
        appliance_id=appliance_id,
        started_at_ns=clock.wall_ns(),
        workers=config.gate.worker_count(os.cpu_count() or 1),
        identity=identity,
        licence=licence,
        ledger=ledger,
        bookkeeping=bookkeeping,
        keyset=keyset,
        issuer=Issuer(
            keyset,
            clock,
            paths.keys,
            algorithm=config.attestation.algorithm,
            token_seconds=config.attestation.token_seconds,
        ),
        publisher=publisher,
        publishing=Publishing(source, publisher, clock),
        supervisor=supervisor,
        models=models,
        gpus=gpus,
        reports=Reports(
            ledger,
            bookkeeping.drain_and_seal,
            Outbox(paths.outbox),
            keyset,
            identity,
            licence,
            clock,
            appliance_id,
            pseudonym_secret(pepper) if config.report.pseudonyms else None,
        ),
        report_rule=rule,
        health=health,
        close=lambda: None,
    )


def _supervisor(config: Config, clock: Clock) -> Supervisor:
    runtime = config.runtime
    helper = HelperClient(config.paths.helper_socket, stop_timeout_seconds=runtime.stop_timeout_seconds)
    return Supervisor(
        helper,
        lambda secret: TritonClient(
            config.paths.triton_http, secret, load_timeout_seconds=runtime.start_timeout_seconds
        ),
        clock,
        start_timeout_seconds=runtime.start_timeout_seconds,
    )


def open_table(config: Config, clock: Clock, publisher: Publisher, ledger: Ledger, workers: int) -> Table:
    """The limits table of this boot: adopted where it is valid, else made and filled from the ledger.

    A policy.db that had to be made anew gave its scopes other slots, so the table is made anew as well.
    """
    window_id = month_window(clock.wall_ns())
    used = ledger.month_usage(window_id)
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
            Code.FILE_UNREADABLE, f"{path} holds no appliance id", hint="restore it from the backup"
        )
    return text
