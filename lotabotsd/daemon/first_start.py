"""Tell a first start from a torn state: what was made together must be there together.

Without this, a lost state.db or pepper would be made anew in silence, and every API key would be unknown.
"""

from __future__ import annotations

from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.paths import Paths


def refuse_torn_state(paths: Paths) -> None:
    """Raise DATABASE_DAMAGED when this appliance has started before and a part of its state is gone.

    `appliance_id` is made last at a first start, so its presence means that the others were there. A removed
    ledger does not stop the appliance: status and `ledger verify` tell of it, and no report is written.
    """
    if not (paths.state / "appliance_id").exists():
        return
    needed: tuple[Path, ...] = (paths.state_db, paths.pepper, paths.keys / "attestation.key")
    gone = [path for path in needed if not path.exists()]
    if gone:
        raise LotaBotsError(
            Code.DATABASE_DAMAGED,
            f"{gone[0]} is gone, though this appliance has run before",
            hint="stop lotabotsd, put your own copy of that file in its place, start it again; "
            f"to begin anew instead, move all of {paths.state} aside",
        )
