"""Where everything lives, derived from two roots. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The layout of an appliance on disk (ARCHITECTURE.md, "What is shared, and who writes it")."""

    state: Path  # /var/lib/lotabots
    run: Path  # /run/lotabots

    @property
    def state_db(self) -> Path:
        """Identities, licence, audit; the daemon's alone."""
        return self.state / "state.db"

    @property
    def ledger_db(self) -> Path:
        """Windows, reports, acknowledgements; the daemon's alone."""
        return self.state / "ledger.db"

    @property
    def keys(self) -> Path:
        """Private keys (0700); the daemon's alone."""
        return self.state / "keys"

    @property
    def licence(self) -> Path:
        """Installed licence files."""
        return self.state / "licence"

    @property
    def policy(self) -> Path:
        """policy.db and the API-key pepper; written by the daemon, read by the gate."""
        return self.state / "policy"

    @property
    def policy_db(self) -> Path:
        return self.policy / "policy.db"

    @property
    def pepper(self) -> Path:
        """32 random bytes that key the hashes of API-key secrets; group-readable for the gate."""
        return self.policy / "pepper"

    @property
    def receipt_key(self) -> Path:
        """The private key of receipts: the one key that the gate holds, group-readable like the pepper."""
        return self.policy / "receipt.key"

    @property
    def receipts_db(self) -> Path:
        """Receipts by their id; the daemon's alone."""
        return self.state / "receipts.db"

    @property
    def journal(self) -> Path:
        """One directory of segments per gate worker."""
        return self.state / "journal"

    @property
    def live_models(self) -> Path:
        """The live model repository: what Triton sees."""
        return self.state / "models" / "live"

    @property
    def staged_models(self) -> Path:
        """Where models are prepared before they go live (same file system as `live_models`)."""
        return self.state / "models" / "staged"

    @property
    def outbox(self) -> Path:
        """Usage reports: new/, sent/, acknowledged/."""
        return self.state / "outbox"

    @property
    def control_socket(self) -> Path:
        return self.run / "control" / "control.sock"

    @property
    def attest_socket(self) -> Path:
        """The daemon's one-verb socket for the gate."""
        return self.run / "attest" / "attest.sock"

    @property
    def helper_socket(self) -> Path:
        return self.run / "helper" / "helper.sock"

    @property
    def limits_table(self) -> Path:
        return self.run / "gate" / "limits.table"

    @property
    def triton(self) -> Path:
        """Triton's sockets."""
        return self.run / "triton"

    @property
    def triton_http(self) -> Path:
        return self.triton / "http.sock"

    def triton_beside(self, run_id: str) -> Path:
        """The same of a run that is on trial beside the one that serves."""
        return self.triton / run_id / "http.sock"

    @property
    def triton_grpc(self) -> Path:
        """The address given to Triton; the file it makes is this plus `:8001`."""
        return self.triton / "grpc.sock"

    @property
    def triton_metrics(self) -> Path:
        return self.triton / "metrics.sock"

    @property
    def run_secrets(self) -> Path:
        """The secret of each container run; the helper's alone (0700)."""
        return self.run / "runtime"

    @property
    def image_notes(self) -> Path:
        """Why the daemon gave an image up, and which models answered before; the daemon's alone."""
        return self.state / "upgrade.json"

    @property
    def images(self) -> Path:
        """Which container image is known to be good, and which was refused; the helper's alone (0700)."""
        return self.state / "images"

    def directories(self) -> list[tuple[Path, int]]:
        """Every directory with its mode, parents first, as tmpfiles.d and `lotabotsd up` make them."""
        return [
            (self.state, 0o711),
            (self.keys, 0o700),
            (self.licence, 0o700),
            (self.policy, 0o2750),
            (self.journal, 0o770),
            (self.state / "models", 0o755),
            (self.live_models, 0o755),
            (self.staged_models, 0o755),
            (self.outbox, 0o700),
            (self.images, 0o700),
            (self.run, 0o755),
            (self.run / "control", 0o750),
            (self.run / "attest", 0o750),
            (self.run / "helper", 0o750),
            (self.run / "gate", 0o770),
            (self.triton, 0o2770),
            (self.run_secrets, 0o700),
        ]
