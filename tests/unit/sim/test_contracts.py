"""What an OCC symbol says, and the identifier that says the same."""

import uuid
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.sim.contracts import Contract, of_id, parse, root_of

CONTRACTS = st.builds(
    Contract,
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=6),
    st.integers(0, 36_000).map(lambda days: date(2000, 1, 1) + timedelta(days)),
    st.sampled_from(["call", "put"]),
    st.integers(0, 99_999_999),
)


@given(CONTRACTS)
def test_symbol_and_id_say_all_of_a_contract(contract: Contract) -> None:
    assert parse(contract.symbol) == contract
    assert of_id(contract.id) == contract
    assert of_id(contract.id.replace("-", "").upper()) == contract
    assert uuid.UUID(contract.id).version == 4


@given(st.uuids(version=4))
def test_an_id_of_something_else_is_no_contract(identifier: uuid.UUID) -> None:
    assert of_id(str(identifier)) is None


@pytest.mark.parametrize(
    "text", ["AAPL", "", "AAPL261332C00150000", "aapl260619C00150000", "AAPL260619X00150000", "BTC/USD"]
)
def test_other_texts_are_no_contracts(text: str) -> None:
    assert parse(text) is None
    assert of_id(text) is None


def test_a_contract_is_named_as_alpaca_names_it() -> None:
    contract = parse("AAPL250620C00100000")
    assert contract is not None
    assert contract.name == "AAPL Jun 20 2025 100 Call"
    assert contract._replace(strike_mills=37_500, type="put").name == "AAPL Jun 20 2025 37.5 Put"
    assert root_of("BRK.B") == "BRKB"
