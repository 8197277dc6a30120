"""The embedded store's budget: who may send now, who waits and in which order, and the breakers. Rows of SQLite, no file.

Every function is one look or one step inside a transaction that ``sqlite`` has begun, at the time that was read in it. The
rules themselves stand in ``policy``. It is a module of its own so that a cached answer does not load it.
"""

import sqlite3
from typing import Any, Final, NamedTuple

from alpacli.ports import (
    HOSTS,
    Breaker,
    BudgetRules,
    Granted,
    Host,
    LimitsReport,
    Outcome,
    Refused,
    Ticket,
    Wait,
    Waiting,
)
from alpacli.store.policy import LONGEST_WAIT_S, MARGIN_S, TURN_S, foreign_until, free_at, seen_by, share, utilisation

_SELECT_BUDGET: Final = "SELECT foreign_n, foreign_until, cap FROM budget WHERE scope = ?"
_NEW: Final[tuple[Any, ...]] = (0, 0.0, None)
"""The budget row of an account that has none yet."""

_SELECT_BREAKER: Final = "SELECT failures, open_until, probe, probe_until FROM breaker WHERE scope = ? AND host = ?"
_CLOSED: Final[tuple[Any, ...]] = (0, 0.0, "", 0.0)
"""The breaker row of a host that has none yet."""


class SqliteBudget(NamedTuple):
    """The budget's rows; the three lengths of time are explained in ``policy``."""

    flight_s: float
    liveness_s: float
    grace_s: float

    def admit(self, db: sqlite3.Connection, now: float, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        scope = rules.scope
        host = (scope, ticket.host)
        _, open_until, probe, probe_until = db.execute(_SELECT_BREAKER, host).fetchone() or _CLOSED
        if open_until:
            if open_until > now + rules.breaker_open_s:  # the clock was set back
                db.execute(
                    "UPDATE breaker SET open_until = ? WHERE scope = ? AND host = ?",
                    (now + rules.breaker_open_s, *host),
                )
            retry_in_s = self._breaker_wait(now, rules, open_until, "" if probe == ticket.id else probe, probe_until)
            if retry_in_s > 0:
                db.execute("DELETE FROM waiting WHERE scope = ? AND id = ?", (scope, ticket.id))
                return Refused(retry_in_s)

        foreign, until, cap = db.execute(_SELECT_BUDGET, (scope,)).fetchone() or _NEW
        foreign = foreign if now < until <= now + rules.window_s + 1 else 0
        used = foreign + self._occupied(db, now, rules)
        limit, reserve = share(rules.limit, rules.reserve, cap)
        slots = limit if ticket.urgent else limit - reserve

        queue = self._queue(db, now, scope)
        ahead = _ahead(queue, ticket)
        prompt = [place for place in queue if now - self.grace_s <= place[2] or place[0] == ticket.id]
        turn = _ahead(prompt, ticket)
        if used + ahead < slots and not turn:
            if queue:
                db.execute("DELETE FROM waiting WHERE scope = ? AND id = ?", (scope, ticket.id))
            if not db.execute("INSERT OR IGNORE INTO flying VALUES (?, ?, ?)", (scope, ticket.id, now)).rowcount:
                # Granted before and never settled: that request counts too.
                db.execute("INSERT INTO sent VALUES (?, ?)", (scope, now))
                db.execute("UPDATE flying SET at = ? WHERE scope = ? AND id = ?", (now, scope, ticket.id))
            db.execute(
                "INSERT INTO usage VALUES (?, ?, 1) ON CONFLICT (scope, minute) DO UPDATE SET n = n + 1",
                (scope, int(now // 60)),
            )
            if open_until:
                db.execute(
                    "UPDATE breaker SET probe = ?, probe_until = ? WHERE scope = ? AND host = ?",
                    (ticket.id, now + self.flight_s, *host),
                )
            return Granted(probe=bool(open_until))

        times = self._free_times(db, now, rules, foreign, until)
        earliest_s = free_at(times, used + ahead - slots, slots, now, rules.window_s) - now + MARGIN_S
        earliest_s = max(earliest_s, MARGIN_S, turn * TURN_S)
        wait_s = min(earliest_s, LONGEST_WAIT_S)
        db.execute(
            "INSERT INTO waiting (scope, id, label, urgent, since, expires, wakes) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (scope, id) DO UPDATE SET expires = excluded.expires, wakes = excluded.wakes",
            (scope, ticket.id, ticket.label, ticket.urgent, now, now + self.liveness_s, now + wait_s),
        )
        return Wait(wait_s, ahead, earliest_s)

    def _occupied(self, db: sqlite3.Connection, now: float, rules: BudgetRules) -> int:
        """Count our own slots, after freeing the old ones. Stamps of a clock that was set back count from now."""
        sent = _counted(db, "sent", rules.scope, now - rules.window_s, now, now + self.flight_s)
        return sent + _counted(db, "flying", rules.scope, now - rules.window_s - self.flight_s, now, now)

    def _breaker_wait(self, now: float, rules: BudgetRules, open_until: float, probe: str, probe_until: float) -> float:
        """Return how long an open breaker still refuses; 0 when a probe may go. No wait is longer than its own rule."""
        if now < open_until:
            return float(min(open_until - now, rules.breaker_open_s))
        if probe and now < probe_until <= now + self.flight_s + 1.0:
            return float(min(probe_until - now, LONGEST_WAIT_S))
        return 0.0

    def _free_times(
        self, db: sqlite3.Connection, now: float, rules: BudgetRules, foreign: int, until: float
    ) -> list[float]:
        """Return when each occupied slot can free at the earliest, sorted: one in flight is settled now at best."""
        times = [at + rules.window_s for (at,) in db.execute("SELECT at FROM sent WHERE scope = ?", (rules.scope,))]
        times += [
            min(now, at + self.flight_s) + rules.window_s
            for (at,) in db.execute("SELECT at FROM flying WHERE scope = ?", (rules.scope,))
        ]
        times += [until] * foreign
        times.sort()
        return times

    def _queue(self, db: sqlite3.Connection, now: float, scope: str) -> list[tuple[str, bool, float]]:
        """Return the living tickets, oldest first, as (id, urgent, when they were told to ask again)."""
        rows = db.execute(
            "SELECT id, urgent, wakes, expires FROM waiting WHERE scope = ? ORDER BY seq", (scope,)
        ).fetchall()
        latest = now + self.liveness_s
        if any(not now <= expires <= latest for *_, expires in rows):
            db.execute("DELETE FROM waiting WHERE scope = ? AND expires < ?", (scope, now))
            db.execute(
                "UPDATE waiting SET expires = :latest, since = min(since, :now), wakes = min(wakes, :now)"
                " WHERE scope = :scope AND expires > :latest",
                {"latest": latest, "now": now, "scope": scope},
            )
        return [(ticket_id, bool(urgent), wakes) for ticket_id, urgent, wakes, expires in rows if now <= expires]

    def settle(self, db: sqlite3.Connection, now: float, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        scope = rules.scope
        at = now
        if outcome.doubtful:
            mine = (scope, ticket.id)
            (granted_at,) = db.execute("SELECT max(at) FROM flying WHERE scope = ? AND id = ?", mine).fetchone()
            at = seen_by(granted_at, now, self.flight_s)
        db.execute("DELETE FROM flying WHERE scope = ? AND id = ?", (scope, ticket.id))
        db.execute("INSERT INTO sent VALUES (?, ?)", (scope, at))
        self._learn(db, now, rules, ticket, failed=outcome.failed)
        row = tuple(db.execute(_SELECT_BUDGET, (scope,)).fetchone() or _NEW)
        foreign, until, cap = row
        if outcome.limit is not None and outcome.limit > 0:
            cap = outcome.limit  # as told: the next caller's own limit may be another one
        if outcome.remaining is not None:
            # Never more than our limit: what others leave of a larger one only matters when it is less than ours.
            seen = min(cap or rules.limit, rules.limit) - max(0, outcome.remaining)
            foreign, until = _foreign(
                (foreign, until),
                max(0, seen - self._occupied(db, now, rules)),
                foreign_until(outcome.reset_at, now, rules.window_s),
            )
        changed = (foreign, until, cap)
        if changed != row:
            db.execute("INSERT OR REPLACE INTO budget VALUES (?, ?, ?, ?)", (scope, *changed))

    def _learn(
        self, db: sqlite3.Connection, now: float, rules: BudgetRules, ticket: Ticket, *, failed: bool | None
    ) -> None:
        """Tell the breaker of the ticket's host how its request ended."""
        host = (rules.scope, ticket.host)
        row = tuple(db.execute(_SELECT_BREAKER, host).fetchone() or _CLOSED)
        failures, open_until, probe, probe_until = row
        if open_until:
            if probe == ticket.id:
                probe, probe_until = "", 0.0
                if failed is not None:
                    failures, open_until = 0, now + rules.breaker_open_s if failed else 0.0
        elif failed is False:
            failures = 0
        elif failed:
            failures += 1
            if failures >= rules.breaker_failures:
                open_until = now + rules.breaker_open_s
        changed = (failures, open_until, probe, probe_until)
        if changed != row:
            db.execute("INSERT OR REPLACE INTO breaker VALUES (?, ?, ?, ?, ?, ?)", (*host, *changed))

    def leave(self, db: sqlite3.Connection, rules: BudgetRules, ticket: Ticket) -> None:
        mine = (rules.scope, ticket.id)
        db.execute("DELETE FROM waiting WHERE scope = ? AND id = ?", mine)
        db.execute("DELETE FROM flying WHERE scope = ? AND id = ?", mine)
        db.execute("UPDATE breaker SET probe = '', probe_until = 0 WHERE scope = ? AND probe = ?", mine)

    def limits(self, db: sqlite3.Connection, now: float, rules: BudgetRules) -> LimitsReport:
        scope = rules.scope
        foreign, until, cap = db.execute(_SELECT_BUDGET, (scope,)).fetchone() or _NEW
        foreign = foreign if now < until <= now + rules.window_s + 1 else 0
        used = foreign + self._occupied(db, now, rules)
        limit, reserve = share(rules.limit, rules.reserve, cap)
        self._queue(db, now, scope)
        waiting = tuple(
            Waiting(label, max(0.0, now - since), bool(urgent))
            for label, since, urgent in db.execute(
                "SELECT label, since, urgent FROM waiting WHERE scope = ? ORDER BY urgent DESC, seq", (scope,)
            )
        )
        minute = int(now // 60)
        (sent,) = db.execute(
            "SELECT total(n) FROM usage WHERE scope = ? AND minute > ? AND minute <= ?", (scope, minute - 60, minute)
        ).fetchone()
        reset_s = 0.0
        if used >= limit:
            times = self._free_times(db, now, rules, foreign, until)
            reset_s = max(0.0, free_at(times, used - limit, limit, now, rules.window_s) - now)
        breakers = tuple(self._breaker(db, now, rules, host) for host in HOSTS)
        return LimitsReport(
            limit, reserve, rules.window_s, used, foreign, utilisation(sent, rules), reset_s, waiting, breakers
        )

    def _breaker(self, db: sqlite3.Connection, now: float, rules: BudgetRules, host: Host) -> Breaker:
        row = db.execute(_SELECT_BREAKER, (rules.scope, host)).fetchone() or _CLOSED
        _, open_until, probe, probe_until = row
        if not open_until:
            return Breaker(host, "closed", 0.0)
        retry_in_s = self._breaker_wait(now, rules, open_until, probe, probe_until)
        return Breaker(host, "open" if now < open_until else "half-open", retry_in_s)


def _counted(db: sqlite3.Connection, table: str, scope: str, oldest: float, now: float, latest: float) -> int:
    """Count an account's rows of a table, after deleting the old ones; those later than can be date from now."""
    mine = f"FROM {table} WHERE scope = ?"
    count, first, last = db.execute(f"SELECT count(*), min(at), max(at) {mine}", (scope,)).fetchone()
    if count and first < oldest:
        count -= db.execute(f"DELETE {mine} AND at < ?", (scope, oldest)).rowcount
    if count and last > latest:
        db.execute(f"UPDATE {table} SET at = ? WHERE scope = ? AND at > ?", (now, scope, latest))  # noqa: S608 # one of two names
    return int(count)


def _ahead(queue: list[tuple[str, bool, float]], ticket: Ticket) -> int:
    """Count who goes first: those of the same kind that came earlier, and before others every urgent one."""
    ahead = 0 if ticket.urgent else sum(urgent for _, urgent, _ in queue)
    for ticket_id, urgent, _ in queue:
        if ticket_id == ticket.id:
            break
        ahead += urgent is ticket.urgent
    return ahead


def _foreign(known: tuple[int, float], count: int, until: float) -> tuple[int, float]:
    """Merge what a server's answer told of other programs with what is known.

    Within one of the server's windows the foreign count only grows, and answers may come in any order; a later window
    replaces it.
    """
    if until < known[1] - 0.5:
        return known
    if until < known[1] + 0.5:
        return max(known[0], count), known[1]
    return count, until
