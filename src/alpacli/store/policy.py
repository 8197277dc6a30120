"""The numbers and namings that both stores share, so that they give the same answers.

The budget's promise is what the server sees: in no window of its clock does it take in more than the limit, however late a
request reaches it, as long as that is at most ``FLIGHT_S`` after its grant (its answer may take longer).

The proof: a request occupies its slot from the grant until one window after the server can have counted it, at the latest.
That is its answer (``settle``). One without an answer may lie in the buffer of a server that is stalled, and be counted
after its sender gave up or was killed: its slot is kept until one window after ``FLIGHT_S``. So whatever window the server
looks at, the request granted last in it was granted while all the others still held their slots.
"""

from typing import Final

from alpacli.ports import BudgetRules

KEEP_S: Final = 86400.0
"""How long an entry is kept: ``--max-age`` can ask for one much older than its usual lifetime."""

FLIGHT_S: Final = 20.0
"""A request has reached the server within this time after its grant, or never will (connect 5 s + read 10 s + slack)."""

LIVENESS_S: Final = 3.0
"""A waiting ticket that has not asked again for this long belongs to a killed process."""

LONGEST_WAIT_S: Final = 1.0
"""``Wait.seconds`` at most: well below the liveness, so that a sleeper never loses its place."""

GRACE_S: Final = 0.1
"""A waiter that comes back later than it was told to, by more than this, is passed; its slot stays kept for it.

Short, because everybody waits for it: on a machine with too little processor time each one in turn is late.
"""

TURN_S: Final = 0.005
"""How soon to ask again, per prompt waiter ahead, when a slot is free and only they have yet to take theirs.

Growing with the place in the line: many that ask at once would keep the first one from being heard.
"""

POLL_S: Final = 0.05
"""How soon to look again for a value that somebody else is fetching."""

MARGIN_S: Final = 0.0005
"""A slot frees strictly after its window, so a sleeper is woken this much later than the border."""

FOREIGN_SKEW_S: Final = 2.0
"""A reset time this little in the past belongs to a window that just ended; one further back to a wrong clock."""


def scope_of(key: str) -> str:
    """Return the account's prefix of a key: ``alpaca:{FP}:orders:all`` -> ``alpaca:{FP}``."""
    return key[: key.find("}") + 1] or key


def seen_by(granted_at: float | None, now: float, flight_s: float) -> float:
    """Return the latest moment at which the server sees a request that got no answer; a grant not known is of now."""
    return max(now, (now if granted_at is None else min(granted_at, now)) + flight_s)


def share(limit: int, reserve: int, cap: int | None) -> tuple[int, int]:
    """Return the limit and the reserve that hold when the server's own limit is ``cap`` (``None``: not known).

    A lower limit keeps the proportion of the reserve, so that reads still get something.
    """
    if cap is None or cap >= limit:
        return limit, reserve
    return cap, reserve * cap // limit


def utilisation(sent: float, rules: BudgetRules) -> float:
    """Return the share (0..1) of an hour's allowance that these requests were."""
    return min(1.0, sent / (rules.limit * 3600.0 / rules.window_s))


def foreign_until(reset_at: float | None, now: float, window_s: float) -> float:
    """Return until when requests that others sent count: the server's reset, at most one window from now."""
    if reset_at is None or reset_at < now - FOREIGN_SKEW_S:
        return now + window_s
    return min(reset_at, now + window_s)


def free_at(times: list[float], index: int, slots: int, now: float, window_s: float) -> float:
    """Return when the slot with this index in the order of freeing is free again.

    ``times`` are the sorted moments at which the occupied slots free. An index behind them means a slot that a caller
    further ahead takes first: one window later.
    """
    later = 0.0
    while index >= len(times):
        index -= max(slots, 1)
        later += window_s
    return (now if index < 0 else times[index]) + later
