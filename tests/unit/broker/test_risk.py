"""The user's own rules, as they stand in ``risk.toml``."""

from pathlib import Path

import pytest

from alpacli.broker.risk import read_rules
from alpacli.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    ["max_order_qty = 1e999999999999999999999", "max_order_qty = " + "1" * 5000, "x = " + "[" * 5000, "x = ", "x = 1"],
)
def test_a_rule_that_cannot_be_read_is_no_missing_rule(tmp_path: Path, text: str) -> None:
    (tmp_path / "risk.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_rules(str(tmp_path), None)
    assert "no order was sent" in caught.value.hint
