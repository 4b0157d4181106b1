"""The one catalogue: what each code says, its next step, its HTTP status and its exit code. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .codes import Code, Exit


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: what to say, what to do, and the two numbers other programs see."""

    message: str
    hint: str
    http_status: int
    exit_code: Exit


def _e(message: str, hint: str, http_status: int, exit_code: Exit = Exit.CHECK_FAILED) -> Entry:
    return Entry(message, hint, http_status, exit_code)


CATALOGUE: dict[Code, Entry] = {
    Code.REQUEST_MALFORMED: _e("the request is malformed", "send a well-formed HTTP/1.1 request", 400),
    Code.JSON_INVALID: _e("the JSON is not valid", "send one JSON object as described in the README", 400),
    Code.TENSOR_INVALID: _e(
        "the tensors do not fit the model",
        "compare name, datatype, shape and byte size with GET /v2/models/NAME",
        400,
    ),
    Code.IMAGE_INVALID: _e(
        "the image cannot be read", "send a whole PNG or JPEG within the pixel limit, or its base64 text", 400
    ),
    Code.PARAMETER_REFUSED: _e(
        "a parameter of the request is not allowed here", "leave the named parameter out", 400
    ),
    Code.SEQUENCE_INVALID: _e(
        "the sequence cannot go on",
        "send sequence_id with each request of a sequence, sequence_start with its first and sequence_end "
        "with its last; one that is idle for long ends by itself",
        400,
    ),
    Code.STREAM_NEEDED: _e(
        "this model answers with a stream", "use POST /v2/models/NAME/generate_stream instead", 400
    ),
    Code.ROUTE_UNKNOWN: _e("there is no such route", "see the list of routes in the README", 404),
    Code.METHOD_NOT_ALLOWED: _e("this route does not take that method", "see the Allow header", 405),
    Code.HEADERS_TOO_LARGE: _e("the request's headers are too large", "send fewer or shorter headers", 431),
    Code.BODY_TOO_LARGE: _e(
        "the request's body is too large",
        "send smaller batches, or ask the admin to raise gate.max_body_bytes",
        413,
    ),
    Code.LENGTH_REQUIRED: _e("the request needs a Content-Length", "send the body's length, not chunks", 411),
    Code.ENCODING_UNSUPPORTED: _e(
        "this content encoding or type is not supported", "send the body plain, or as gzip where allowed", 415
    ),
    Code.REQUEST_TIMEOUT: _e("the request took too long to arrive", "send the whole request faster", 408),
    Code.KEY_MISSING: _e("an API key is needed", "send the header 'Authorization: Bearer lb_…'", 401),
    Code.KEY_INVALID: _e(
        "this API key is not known", "check the key for typing errors, or ask the admin for a new one", 401
    ),
    Code.KEY_EXPIRED: _e(
        "this API key has expired", "ask the admin to rotate it: lotabotsctl key rotate KEY_ID", 401
    ),
    Code.KEY_REVOKED: _e("this API key was revoked", "ask the admin for a new key", 401),
    Code.PERMISSION_DENIED: _e(
        "this is not permitted", "ask an owner or admin of the organisation", 403, Exit.NEEDS_ROOT
    ),
    Code.MODEL_NOT_IN_SCOPE: _e(
        "this API key may not use this model", "ask the admin to add the model to the key's scopes", 403
    ),
    Code.PEER_REFUSED: _e(
        "this user may not use the socket",
        "run as root, or as a member of the group lotabots-admin",
        403,
        Exit.NEEDS_ROOT,
    ),
    Code.RATE_LIMITED: _e("too many requests", "wait as long as Retry-After says", 429, Exit.BUSY),
    Code.CONCURRENCY_LIMITED: _e(
        "too many requests at once", "wait for running requests to end", 429, Exit.BUSY
    ),
    Code.QUOTA_SPENT: _e(
        "the quota of this month is spent",
        "wait for the next month, or ask the admin for a larger licence",
        429,
    ),
    Code.MODEL_UNKNOWN: _e("there is no such model", "see the models with POST /v2/repository/index", 404),
    Code.MODEL_NOT_READY: _e(
        "the model is not ready", "try again shortly; lotabotsctl status says why", 503, Exit.BUSY
    ),
    Code.MODEL_FAILED: _e(
        "the model could not answer this request",
        "check the input; the admin sees the reason with lotabotsctl logs",
        502,
    ),
    Code.PREDICT_UNSUPPORTED: _e(
        "this model has no predict endpoint", "use POST /v2/models/NAME/infer with tensors", 404
    ),
    Code.STARTING: _e("the appliance is starting", "try again in a few seconds", 503, Exit.BUSY),
    Code.DRAINING: _e("the appliance is stopping", "try again shortly", 503, Exit.BUSY),
    Code.OVERLOADED: _e("the appliance is busy", "wait as long as Retry-After says", 503, Exit.BUSY),
    Code.POLICY_LEASE_ENDED: _e(
        "the gate has not heard from the daemon for too long",
        "start it: systemctl start lotabotsd; then lotabotsctl status",
        503,
    ),
    Code.JOURNAL_UNAVAILABLE: _e(
        "usage cannot be recorded", "free disk space or repair the disk, then lotabotsctl status", 503
    ),
    Code.LIMITS_UNAVAILABLE: _e("the limits cannot be checked now", "try again", 503, Exit.BUSY),
    Code.RUNTIME_UNAVAILABLE: _e(
        "the inference server is not running",
        "try again shortly; lotabotsctl status says why",
        503,
        Exit.BUSY,
    ),
    Code.RUNTIME_TIMEOUT: _e(
        "the inference server did not answer in time", "try again with a smaller batch", 504
    ),
    Code.DAEMON_UNAVAILABLE: _e(
        "lotabotsd does not answer",
        "start it: systemctl start lotabotsd, or lotabotsd up; its log says why it stopped: "
        "journalctl -u lotabotsd, or the terminal of lotabotsd up",
        503,
        Exit.CHECK_FAILED,
    ),
    Code.LICENCE_TERMINATED: _e(
        "the licence has ended", "install a renewed licence: lotabotsctl licence install FILE", 503
    ),
    Code.ENVELOPE_MALFORMED: _e(
        "the signed file cannot be read", "copy the file again, whole and unchanged", 400, Exit.SIGNATURE
    ),
    Code.ENVELOPE_TYPE: _e(
        "this is another kind of signed file",
        "give the kind of file that the command asks for",
        400,
        Exit.SIGNATURE,
    ),
    Code.SIGNATURE_INVALID: _e(
        "the signature does not match",
        "the file was changed or damaged: ask its sender for a new one",
        400,
        Exit.SIGNATURE,
    ),
    Code.SIGNER_UNKNOWN: _e(
        "the signing key is not trusted here",
        "check that the file is meant for this appliance; the vendor's newest keyring may have to come first",
        400,
        Exit.SIGNATURE,
    ),
    Code.SIGNER_REVOKED: _e(
        "the signing key was revoked", "ask the vendor for a new document", 400, Exit.SIGNATURE
    ),
    Code.SIGNER_NOT_VALID: _e(
        "the signing key was not valid on the day of issue",
        "ask the vendor for a new document",
        400,
        Exit.SIGNATURE,
    ),
    Code.KEY_WEAK: _e(
        "the public key is a weak one", "ask the key's owner for a new key", 400, Exit.SIGNATURE
    ),
    Code.KEY_URI_UNSUPPORTED: _e(
        "this release signs with key files only", "give file:PATH, or the path alone", 422, Exit.USAGE
    ),
    Code.KEYRING_INVALID: _e(
        "the vendor keyring is not valid", "ask the vendor for the keyring again", 400, Exit.SIGNATURE
    ),
    Code.KEYRING_ORDER: _e(
        "the keyring does not follow the one in force", "install every keyring in its order", 409
    ),
    Code.LICENCE_INVALID: _e(
        "the licence is not valid", "ask the vendor for a new licence file", 400, Exit.SIGNATURE
    ),
    Code.LICENCE_NOT_YET_VALID: _e(
        "the licence does not start yet", "install it on its starting day, or check the clock", 400
    ),
    Code.LICENCE_EXPIRED: _e("the licence has expired", "ask the vendor for a renewed licence", 400),
    Code.LICENCE_ROLLBACK: _e(
        "a newer licence was installed before", "install the newest licence file, not an older one", 409
    ),
    Code.LICENCE_FINGERPRINT: _e(
        "the licence belongs to another machine", "ask the vendor for a licence bound to this machine", 400
    ),
    Code.LICENCE_REVOKED: _e(
        "the vendor has revoked this licence", "ask the vendor for another licence", 409, Exit.SIGNATURE
    ),
    Code.REVOCATIONS_INVALID: _e(
        "the list of revoked licences is not valid", "ask the vendor for the list again", 400, Exit.SIGNATURE
    ),
    Code.REVOCATIONS_OLDER: _e(
        "a newer list of revoked licences is here already",
        "nothing is to be done: the newer one holds",
        409,
    ),
    Code.ACTIVATION_INVALID: _e(
        "the activation request is not valid",
        "make a new one on the appliance: lotabotsctl licence request",
        400,
        Exit.SIGNATURE,
    ),
    Code.LICENCE_LIMIT: _e(
        "the licence does not allow that many", "remove some, or ask for a larger licence", 409
    ),
    Code.RATE_CARD_INVALID: _e(
        "the rate card is not valid", "ask the vendor for the rate card again", 400, Exit.SIGNATURE
    ),
    Code.REPORT_INVALID: _e(
        "the usage report is not valid", "ask for the report again, unchanged", 400, Exit.SIGNATURE
    ),
    Code.REPORT_EMPTY: _e(
        "there is nothing new to report", "wait for new usage, or look with usage show", 409
    ),
    Code.REPORT_OVERLAP: _e("this range was reported before", "use the report written before", 409),
    Code.REPORT_PURGED: _e(
        "the rows of this report were purged",
        "use the file in the outbox, in acknowledged/: it cannot be written again",
        409,
    ),
    Code.ACKNOWLEDGEMENT_INVALID: _e(
        "the acknowledgement is not valid",
        "ask the vendor for the acknowledgement again",
        400,
        Exit.SIGNATURE,
    ),
    Code.ACKNOWLEDGEMENT_ELSEWHERE: _e(
        "the acknowledgement is for another appliance", "carry it to the appliance that it names", 409
    ),
    Code.ACKNOWLEDGEMENT_UNKNOWN: _e(
        "the acknowledgement is for a report that was not made here",
        "tell the vendor: this machine was set up anew or restored, or another one uses its name",
        409,
    ),
    Code.ACKNOWLEDGEMENT_MISMATCH: _e(
        "the acknowledged report is another one than the one made here",
        "tell the vendor: two machines make reports under one name, or this one was restored",
        409,
    ),
    Code.ACKNOWLEDGEMENT_OLDER: _e(
        "a newer acknowledgement of this report is here already",
        "nothing is to be done: the newer one holds",
        409,
    ),
    Code.TOKEN_INVALID: _e(
        "the token is not valid", "ask for a new token, and check audience and keys", 400, Exit.SIGNATURE
    ),
    Code.NONCE_INVALID: _e("the nonce is not usable", "send 22 to 88 characters of A-Z a-z 0-9 - _", 400),
    Code.NOT_FOUND: _e("there is no such thing", "list what there is, then try again", 404),
    Code.ALREADY_EXISTS: _e("this exists already", "choose another name", 409),
    Code.CONFLICT: _e(
        "this does not fit the present state", "look at the present state, then try again", 409
    ),
    Code.VALUE_INVALID: _e("a value is not usable", "see the command's --help", 422, Exit.USAGE),
    Code.DATABASE_DAMAGED: _e(
        "a database is damaged",
        "stop lotabotsd, put your own copy of that file in its place, start it again",
        500,
    ),
    Code.JOURNAL_DAMAGED: _e(
        "a usage journal is damaged",
        "keep the file; what is readable is counted and the rest is reported",
        500,
    ),
    Code.LEDGER_DAMAGED: _e(
        "the usage ledger is damaged",
        "keep ledger.db and ledger.head as they are and tell the vendor; "
        "lotabotsctl ledger verify names the first fault",
        500,
    ),
    Code.LIMITS_TABLE_DAMAGED: _e(
        "the limits table is damaged", "restart lotabotsd: it rebuilds the table from the ledger", 500
    ),
    Code.PACKAGE_INVALID: _e("the model package is not valid", "mend what is named and add it again", 400),
    Code.DIGEST_MISMATCH: _e(
        "a file does not have the expected digest",
        "fetch the file again: scripts/fetch-models",
        400,
        Exit.SIGNATURE,
    ),
    Code.CONFIG_INVALID: _e(
        "the configuration is not valid",
        "mend the lines named, then lotabotsd check-config",
        400,
        Exit.CONFIGURATION,
    ),
    Code.FILE_UNREADABLE: _e("a file cannot be read", "check the path and its permissions", 400),
    Code.FILE_UNWRITABLE: _e(
        "a file cannot be written", "check the directory, its permissions and free space", 500
    ),
    Code.DISK_FULL: _e("the disk is full", "free some space; nothing that was counted is lost", 507),
    Code.ADDRESS_IN_USE: _e(
        "the address is in use", "stop the other program, or choose another port", 500, Exit.BUSY
    ),
    Code.ALREADY_RUNNING: _e("lotabotsd is already running here", "stop the other one first", 409, Exit.BUSY),
    Code.RUNTIME_MISSING: _e(
        "the inference server is not installed",
        "install it: pip install 'lotabotsd[embedded]', or load the image",
        500,
    ),
    Code.IMAGE_MISSING: _e(
        "the container image is not here",
        "load it: docker load -i ARCHIVE, or name the archive in runtime.image_archive",
        500,
    ),
    Code.IMAGE_DIGEST_MISMATCH: _e(
        "the container image is not the one configured",
        "fetch the archive again, and compare its digests with those delivered apart",
        500,
        Exit.SIGNATURE,
    ),
    Code.IMAGE_LOADING: _e("the container image is being loaded", "wait: Triton is started after it", 503),
    Code.ENGINE_UNAVAILABLE: _e(
        "the container engine does not answer", "start it: systemctl start docker", 503
    ),
    Code.ENGINE_REFUSED: _e(
        "the container engine refused", "mend what it names; journalctl -u docker says more", 500
    ),
    Code.HELPER_UNAVAILABLE: _e(
        "the runtime helper does not answer", "start it: systemctl start lotabots-runtime", 503
    ),
    Code.HELPER_REFUSED: _e("the runtime helper refused", "see lotabotsctl logs for the reason", 403),
    Code.USAGE: _e("the command was not understood", "see --help", 400, Exit.USAGE),
    Code.INTERRUPTED: _e("interrupted", "run it again: it goes on where it stopped", 499, Exit.INTERRUPTED),
    Code.INTERNAL: _e(
        "something unexpected happened",
        "this is a bug: please report it with lotabotsctl logs",
        500,
        Exit.UNEXPECTED,
    ),
}
