"""The arithmetic of limits: rate (GCRA), concurrency and quota over plain numbers. Pure.

Rate is the generic cell rate algorithm (ITU-T I.371, annex A) in integer nanoseconds: a slot keeps one
theoretical arrival time; a request of cost c may come when `max(arrival, now) + c * interval` is at most
`now + burst * interval`, and then moves the arrival time there. So in any span t at most
burst + t / interval requests pass.

Concurrency is the number of open requests, which is admitted - committed - refunded. Quota counts rows
per window: used (committed) and reserved (open). A slot that changes its owner starts anew in a new
epoch, so that cells and tickets of the old one no longer count.
"""

from __future__ import annotations

from collections.abc import Iterable

from .scope import Refusal, Remaining, Scope, Totals, Unit

# tag, arrival_ns, window_id, epoch, used, reserved, admitted, committed, refunded
Slot = tuple[int, int, int, int, int, int, int, int, int]
# epoch, window_id, in_flight, 0, reserved
Cell = tuple[int, int, int, int, int]

TAG, ARRIVAL, WINDOW, EPOCH, USED, RESERVED, ADMITTED, COMMITTED, REFUNDED = range(9)
CELL_EPOCH, CELL_WINDOW, CELL_IN_FLIGHT, _ZERO, CELL_RESERVED = range(5)
_EPOCHS = 1 << 32


def owned(slot: Slot, tag: int, window_id: int) -> Slot:
    """The slot as `tag` finds it in a window: anew when it was another's, without the past window's rows."""
    found, arrival, window, epoch, _, _, admitted, committed, refunded = slot
    if found != tag:
        return (tag, 0, window_id, (epoch + 1) % _EPOCHS, 0, 0, 0, 0, 0)
    if window < window_id:
        return (tag, arrival, window_id, epoch, 0, 0, admitted, committed, refunded)
    return slot


def rate_wait_ns(scope: Scope, arrival_ns: int, cost: int, now_ns: int) -> int:
    """How long until a request of `cost` may come; 0 or less: now. Only for scopes with a rate."""
    arrival = max(arrival_ns, now_ns)
    return arrival + cost * scope.interval_ns - scope.tolerance_ns - now_ns


def rate_left(scope: Scope, arrival_ns: int, now_ns: int) -> int:
    """How many requests of cost 1 may come at once now."""
    return max(0, scope.tolerance_ns - max(0, arrival_ns - now_ns)) // scope.interval_ns


def admits(scope: Scope, slot: Slot, rows: int, cost: int, now_ns: int) -> bool:
    """Whether one scope lets the request pass. `slot` comes from `owned`."""
    _, arrival, _, _, used, reserved, admitted, committed, refunded = slot
    if scope.interval_ns and rate_wait_ns(scope, arrival, cost, now_ns) > 0:
        return False
    if scope.concurrency and admitted - committed - refunded >= scope.concurrency:
        return False
    return not (scope.quota and scope.quota_hard and used + reserved + rows > scope.quota)


def opened(scope: Scope, slot: Slot, cell: Cell, rows: int, cost: int, now_ns: int) -> tuple[int, ...]:
    """Slot and cell (14 numbers) after an admission. `slot` comes from `owned`."""
    tag, arrival, window, epoch, used, reserved, admitted, committed, refunded = slot
    cell_epoch, cell_window, in_flight, _, cell_reserved = cell
    if cell_epoch != epoch:
        in_flight = cell_reserved = 0
    elif cell_window != window:
        cell_reserved = 0
    return (
        tag,
        max(arrival, now_ns) + cost * scope.interval_ns,
        window,
        epoch,
        used,
        reserved + rows,
        admitted + 1,
        committed,
        refunded,
        epoch,
        window,
        in_flight + 1,
        0,
        cell_reserved + rows,
    )


def holds(slot: Slot, cell: Cell, epoch: int) -> bool:
    """Whether a ticket admitted in `epoch` still counts in this slot (not reassigned, not settled)."""
    return slot[EPOCH] == epoch == cell[CELL_EPOCH] and cell[CELL_IN_FLIGHT] > 0


def closed(slot: Slot, cell: Cell, window_id: int, reserved_rows: int, rows: int | None) -> tuple[int, ...]:
    """Slot and cell after a ticket was committed with `rows`, or refunded (None).

    Rows of a past window are dropped: that window's quota is nobody's concern any more. In the slot's
    window the cell is in it too, because the ticket's admission brought it there.
    """
    tag, arrival, window, epoch, used, reserved, admitted, committed, refunded = slot
    _, cell_window, in_flight, _, cell_reserved = cell
    if window == window_id:
        reserved -= reserved_rows
        used += rows or 0
        cell_reserved -= reserved_rows
    if rows is None:
        refunded += 1
    else:
        committed += 1
    return (
        tag,
        arrival,
        window,
        epoch,
        used,
        reserved,
        admitted,
        committed,
        refunded,
        epoch,
        cell_window,
        in_flight - 1,
        0,
        cell_reserved,
    )


def settled(slot: Slot, cell: Cell) -> tuple[int, ...]:
    """Slot and cell after the cell's worker died: everything it had open is refunded."""
    tag, arrival, window, epoch, used, reserved, admitted, committed, refunded = slot
    cell_epoch, cell_window, in_flight, _, cell_reserved = cell
    if cell_epoch == epoch:
        refunded += in_flight
        reserved -= cell_reserved if cell_window == window else 0
    return (
        tag,
        arrival,
        window,
        epoch,
        used,
        reserved,
        admitted,
        committed,
        refunded,
        epoch,
        window,
        0,
        0,
        0,
    )


def refusal(
    scopes: tuple[Scope, ...],
    slots: list[Slot],
    rows: int,
    cost: int,
    now_ns: int,
    window_ends_in_ns: int,
) -> Refusal:
    """Say which limit refused: quota before rate before concurrency, and the longest wait among rates.

    At least one scope must refuse. Before the told instant the request cannot pass, unless open requests
    give rows back; at that instant every rate lets it pass, if nothing else came.
    """
    found: list[tuple[int, int, Scope, Unit, int, int]] = []
    for scope, slot in zip(scopes, slots, strict=True):
        if scope.interval_ns and (wait := rate_wait_ns(scope, slot[ARRIVAL], cost, now_ns)) > 0:
            never = cost * scope.interval_ns > scope.tolerance_ns  # a larger cost than the burst
            left = rate_left(scope, slot[ARRIVAL], now_ns)
            found.append(
                (3 if never else 1, 0 if never else wait, scope, "rate", scope.rate_per_minute, left)
            )
        open_requests = slot[ADMITTED] - slot[COMMITTED] - slot[REFUNDED]
        if scope.concurrency and open_requests >= scope.concurrency:
            found.append((0, 0, scope, "concurrency", scope.concurrency, 0))
        left = scope.quota - slot[USED] - slot[RESERVED]
        if scope.quota and scope.quota_hard and rows > left:
            found.append((2, window_ends_in_ns, scope, "quota", scope.quota, max(0, left)))
    _, wait, scope, unit, limit, left = max(found, key=lambda one: one[:2])
    return Refusal(scope.kind, unit, limit, left, wait)


def remaining(scope: Scope, slot: Slot, now_ns: int) -> Remaining:
    """What a scope has left. `slot` comes from `owned`."""
    has_rate = scope.interval_ns > 0
    return Remaining(
        rate_left(scope, slot[ARRIVAL], now_ns) if has_rate else None,
        max(0, slot[ARRIVAL] - now_ns) if has_rate else 0,
        max(0, scope.quota - slot[USED] - slot[RESERVED]) if scope.quota else None,
    )


def totals(slot: Slot, cells: Iterable[Cell]) -> Totals:
    """The accounts of a slot and of all workers' cells in it."""
    mine = [cell for cell in cells if cell[CELL_EPOCH] == slot[EPOCH]]
    return Totals(
        slot[ADMITTED],
        slot[COMMITTED],
        slot[REFUNDED],
        sum(cell[CELL_IN_FLIGHT] for cell in mine),
        slot[USED],
        slot[RESERVED],
        sum(cell[CELL_RESERVED] for cell in mine if cell[CELL_WINDOW] == slot[WINDOW]),
        slot[WINDOW],
    )
