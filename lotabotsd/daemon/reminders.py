"""Write how the licence stands into the log: each change once, and 30, 14, 7 and 1 days before the end."""

from __future__ import annotations

import logging

from lotabotsd.foundation.clock import from_ns, rfc3339
from lotabotsd.licence.standing import Standing, State

log = logging.getLogger("lotabots.daemon")

_LEVELS = {
    State.NONE: logging.INFO,
    State.VALID: logging.INFO,
    State.EXPIRING: logging.WARNING,
    State.GRACE: logging.WARNING,
    State.RESTRICTED: logging.ERROR,
    State.TERMINATED: logging.ERROR,
}


class Reminders:
    """Remembers what was told; a restart tells it again."""

    def __init__(self) -> None:
        self._told: tuple[str, str, int] | None = None
        self._suspect = False

    def look(self, standing: Standing) -> None:
        """Tell of a standing that is another than the one told before."""
        now = (standing.licence_id, standing.code, standing.reminder_days)
        if now != self._told:
            self._told = now
            log.log(_LEVELS[standing.state], "%s", _words(standing), extra={"code": standing.code})
        if standing.clock_suspect != self._suspect:
            self._suspect = standing.clock_suspect
            if self._suspect:
                log.warning("the clock stands before moments already seen: expiry is judged by those")
            else:
                log.info("the clock is right again")


def _words(standing: Standing) -> str:
    if standing.state is State.EXPIRING:
        until, days = rfc3339(from_ns(standing.expires_at_ns)), standing.reminder_days
        return f"licence {standing.licence_id} expires on {until}, within {days} days: {standing.effect}"
    name = f"licence {standing.licence_id}: " if standing.licence_id else ""
    detail = f" ({standing.detail})" if standing.detail else ""
    return f"{name}{standing.effect}{detail}"
