"""The names of everything that can go wrong, and the exit codes of every command. Pure."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """Exit codes of every command (ARCHITECTURE.md, "Exit codes")."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CHECK_FAILED = 3
    WARNINGS = 4
    CONFIGURATION = 5
    SIGNATURE = 6
    NEEDS_ROOT = 7
    BUSY = 8
    ROLLED_BACK = 9
    PLAN_HAS_CHANGES = 10
    ROLLBACK_FAILED = 11
    INTERRUPTED = 130


class Code(StrEnum):
    """Stable names of failures; a client may depend on them."""

    # the request
    REQUEST_MALFORMED = "request_malformed"
    JSON_INVALID = "json_invalid"
    TENSOR_INVALID = "tensor_invalid"
    IMAGE_INVALID = "image_invalid"
    PARAMETER_REFUSED = "parameter_refused"
    SEQUENCE_INVALID = "sequence_invalid"
    STREAM_NEEDED = "stream_needed"
    ROUTE_UNKNOWN = "route_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_TOO_LARGE = "body_too_large"
    LENGTH_REQUIRED = "length_required"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    REQUEST_TIMEOUT = "request_timeout"
    # who asks
    KEY_MISSING = "key_missing"
    KEY_INVALID = "key_invalid"
    KEY_EXPIRED = "key_expired"
    KEY_REVOKED = "key_revoked"
    PERMISSION_DENIED = "permission_denied"
    MODEL_NOT_IN_SCOPE = "model_not_in_scope"
    PEER_REFUSED = "peer_refused"
    # how much
    RATE_LIMITED = "rate_limited"
    CONCURRENCY_LIMITED = "concurrency_limited"
    QUOTA_SPENT = "quota_spent"
    # the model
    MODEL_UNKNOWN = "model_unknown"
    MODEL_NOT_READY = "model_not_ready"
    MODEL_FAILED = "model_failed"
    PREDICT_UNSUPPORTED = "predict_unsupported"
    # readiness of the appliance
    STARTING = "starting"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    POLICY_LEASE_ENDED = "policy_lease_ended"
    JOURNAL_UNAVAILABLE = "journal_unavailable"
    LIMITS_UNAVAILABLE = "limits_unavailable"
    RUNTIME_UNAVAILABLE = "runtime_unavailable"
    RUNTIME_TIMEOUT = "runtime_timeout"
    DAEMON_UNAVAILABLE = "daemon_unavailable"
    LICENCE_TERMINATED = "licence_terminated"
    # signed documents
    ENVELOPE_MALFORMED = "envelope_malformed"
    ENVELOPE_TYPE = "envelope_type"
    SIGNATURE_INVALID = "signature_invalid"
    SIGNER_UNKNOWN = "signer_unknown"
    SIGNER_REVOKED = "signer_revoked"
    SIGNER_NOT_VALID = "signer_not_valid"
    KEY_WEAK = "key_weak"
    KEY_URI_UNSUPPORTED = "key_uri_unsupported"
    KEYRING_INVALID = "keyring_invalid"
    KEYRING_ORDER = "keyring_order"
    LICENCE_INVALID = "licence_invalid"
    LICENCE_NOT_YET_VALID = "licence_not_yet_valid"
    LICENCE_EXPIRED = "licence_expired"
    LICENCE_ROLLBACK = "licence_rollback"
    LICENCE_FINGERPRINT = "licence_fingerprint"
    LICENCE_REVOKED = "licence_revoked"
    LICENCE_LIMIT = "licence_limit"
    REVOCATIONS_INVALID = "revocations_invalid"
    REVOCATIONS_OLDER = "revocations_older"
    ACTIVATION_INVALID = "activation_invalid"
    RATE_CARD_INVALID = "rate_card_invalid"
    REPORT_INVALID = "report_invalid"
    REPORT_EMPTY = "report_empty"
    REPORT_OVERLAP = "report_overlap"
    REPORT_PURGED = "report_purged"
    ACKNOWLEDGEMENT_INVALID = "acknowledgement_invalid"
    ACKNOWLEDGEMENT_ELSEWHERE = "acknowledgement_elsewhere"
    ACKNOWLEDGEMENT_UNKNOWN = "acknowledgement_unknown"
    ACKNOWLEDGEMENT_MISMATCH = "acknowledgement_mismatch"
    ACKNOWLEDGEMENT_OLDER = "acknowledgement_older"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a code, no password
    NONCE_INVALID = "nonce_invalid"
    # stored things
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"
    VALUE_INVALID = "value_invalid"
    DATABASE_DAMAGED = "database_damaged"
    JOURNAL_DAMAGED = "journal_damaged"
    LEDGER_DAMAGED = "ledger_damaged"
    LIMITS_TABLE_DAMAGED = "limits_table_damaged"
    PACKAGE_INVALID = "package_invalid"
    DIGEST_MISMATCH = "digest_mismatch"
    # the host
    CONFIG_INVALID = "config_invalid"
    FILE_UNREADABLE = "file_unreadable"
    FILE_UNWRITABLE = "file_unwritable"
    DISK_FULL = "disk_full"
    ADDRESS_IN_USE = "address_in_use"
    ALREADY_RUNNING = "already_running"
    RUNTIME_MISSING = "runtime_missing"
    IMAGE_MISSING = "image_missing"
    IMAGE_DIGEST_MISMATCH = "image_digest_mismatch"
    IMAGE_LOADING = "image_loading"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_REFUSED = "engine_refused"
    HELPER_UNAVAILABLE = "helper_unavailable"
    HELPER_REFUSED = "helper_refused"
    USAGE = "usage"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"
