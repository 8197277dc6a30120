"""What short options need behind them, case by case."""

from decimal import Decimal

import pytest

from alpacli.sim.collateral import cover
from alpacli.sim.contracts import parse

NEAR, FAR = "260619", "260717"


def book(*legs: str) -> dict[object, int]:
    """Read ``-1 C110`` or ``+2 P95 FAR`` into contracts and how many of them are held."""
    found = {}
    for leg in legs:
        qty, what, *day = leg.split()
        contract = parse(f"AAPL{FAR if day else NEAR}{what[0]}{int(float(what[1:]) * 1000):08d}")
        assert contract is not None
        found[contract] = int(qty)
    return found  # type: ignore[return-value] # keys are contracts


CASES = [
    ("what is long needs nothing", ["+3 C100", "+1 P100"], 0, ("0", 0, 0)),
    ("a put needs its strike in money", ["-2 P95"], 0, ("19000", 0, 0)),
    ("a call needs shares", ["-2 C100"], 3, ("0", 2, 0)),
    ("a call without shares is uncovered", ["-2 C100"], 1, ("0", 1, 1)),
    ("a debit spread needs nothing", ["+1 C100", "-1 C110"], 0, ("0", 0, 0)),
    ("a credit spread needs its width", ["-1 C100", "+1 C110"], 0, ("1000", 0, 0)),
    ("a put spread needs its width", ["-1 P100", "+1 P92.5"], 0, ("750", 0, 0)),
    ("a condor needs its wider side", ["-1 P100", "+1 P95", "-1 C110", "+1 C120"], 0, ("1000", 0, 0)),
    ("a straddle with shares needs the put's strike", ["-1 C100", "-1 P100"], 1, ("10000", 1, 0)),
    ("a ratio spread is uncovered in part", ["+1 C100", "-2 C110"], 0, ("0", 0, 1)),
    ("shares take what long calls leave", ["+1 C105", "-1 C100", "-1 C110"], 1, ("0", 1, 0)),
    ("a call that lives longer covers", ["-1 C100", "+1 C100 FAR"], 0, ("0", 0, 0)),
    ("a call that ends sooner does not", ["+1 C100", "-1 C100 FAR"], 0, ("0", 0, 1)),
    ("spreads of two days need both", ["-1 C100", "+1 C110", "-1 P100 FAR", "+1 P95 FAR"], 0, ("1500", 0, 0)),
    ("one long call does not cover two days", ["-1 C100", "-1 C100 FAR", "+1 C110 FAR"], 0, ("1000", 0, 1)),
    ("a butterfly needs nothing", ["+1 C100", "-2 C110", "+1 C120"], 0, ("0", 0, 0)),
]


@pytest.mark.parametrize(("legs", "lots", "needed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_short_options_need(legs: list[str], lots: int, needed: tuple[str, int, int]) -> None:
    found = cover(book(*legs), lots)  # type: ignore[arg-type] # keys are contracts
    assert (found.money, found.lots, found.uncovered) == (Decimal(needed[0]), needed[1], needed[2])


def test_it_is_told_whether_long_options_stand_behind_short_ones() -> None:
    assert cover(book("+1 C100", "-1 C110"), 1).spreads  # type: ignore[arg-type] # keys are contracts
    assert not cover(book("-1 C110", "-1 P90"), 1).spreads  # type: ignore[arg-type] # keys are contracts
