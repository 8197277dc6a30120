"""The rules of requests and of orders with what they need, for tests that bring their own store, clock and transport."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.support.fakes import FixedRandomness

from alpacli.broker.desk import Desk
from alpacli.broker.flow import Pipeline
from alpacli.broker.outcomes import Who
from alpacli.broker.risk import RiskRules
from alpacli.history.plan import Plan
from alpacli.ports import BudgetRules, Clock, Randomness, Store
from alpacli.store.halt import Halt
from alpacli.store.journal import Journal

RULES: Final = BudgetRules("alpaca:{test}")


def pipeline(
    store: Store,
    clock: Clock,
    rng: Randomness | None = None,
    *,
    rules: BudgetRules = RULES,
    cache_ttl_s: Mapping[str, float] | None = None,
    max_wait_s: float = 10.0,
) -> Pipeline:
    return Pipeline(
        store,
        clock,
        rng or FixedRandomness(),
        rules=rules,
        cache_ttl_s=cache_ttl_s or {},
        max_wait_s=max_wait_s,
        patience_s=15.0,
        label="test",
    )


def desk(
    rules_of_requests: Pipeline,
    clock: Clock,
    journal: Journal,
    rng: Randomness | None = None,
    *,
    rules: Callable[[], RiskRules] = RiskRules,
    halted: Callable[[], Halt | None] = lambda: None,
    pid: int = 1,
    plan: Plan | None = None,
    warn: Callable[[str], None] = print,
) -> Desk:
    who = Who("me", "here", pid, "test")
    return Desk(
        rules_of_requests,
        clock,
        rng or FixedRandomness(),
        journal=journal,
        rules=rules,
        halted=halted,
        who=who,
        plan=plan or Plan(""),
        warn=warn,
    )
