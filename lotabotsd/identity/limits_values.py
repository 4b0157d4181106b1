"""The limits that an admin gives an organisation, a team, a key or a model. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lotabotsd.foundation.errors import Code, LotaBotsError

MAX_RATE_PER_MINUTE = 100_000_000
MAX_CONCURRENCY = 65_535
MAX_QUOTA_PER_MONTH = 10**15


@dataclass(frozen=True, slots=True)
class ScopeLimits:
    """Three limits; 0 means that there is no such limit."""

    rate_per_minute: int = 0  # requests
    concurrency: int = 0  # requests at the same time
    quota_per_month: int = 0  # inferences, calendar month

    def checked(self) -> ScopeLimits:
        """These limits when they make sense. Raises VALUE_INVALID naming the first that does not."""
        for name, value, most in (
            ("rate_per_minute", self.rate_per_minute, MAX_RATE_PER_MINUTE),
            ("concurrency", self.concurrency, MAX_CONCURRENCY),
            ("quota_per_month", self.quota_per_month, MAX_QUOTA_PER_MONTH),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise LotaBotsError(
                    Code.VALUE_INVALID, f"{name} must be a whole number from 0 (none) to {most}"
                )
        return self

    def columns(self) -> tuple[int, int, int]:
        """The three in the order of the tables' columns."""
        return self.rate_per_minute, self.concurrency, self.quota_per_month

    def to_dict(self) -> dict[str, int]:
        """For JSON: audit rows, the control API."""
        return {
            "rate_per_minute": self.rate_per_minute,
            "concurrency": self.concurrency,
            "quota_per_month": self.quota_per_month,
        }


NO_LIMITS = ScopeLimits()
