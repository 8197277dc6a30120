"""The report is one page that needs nothing but itself, and shows what looks like markup as it is written."""

import io
import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alpacli.domain.values import Timestamp
from alpacli.history.earnings import ClosedLot, Earnings, EarningsRow
from alpacli.history.returns import EquityDay, stats
from alpacli.render.curve import Box, lay_out, round_levels
from alpacli.render.picture import equity_png
from alpacli.render.report import page

EVIL = "<script>alert('x')</script>\"&"
ZERO = Decimal(0)


def _day(number: int, equity: str) -> EquityDay:
    return EquityDay(
        day=date.fromordinal(739_000 + number).isoformat(),
        equity=Decimal(equity),
        source="snapshot",
        transfers=ZERO,
        return_ratio=Decimal("0.01") if number else None,
        alpaca_equity=None,
        exposure_ratio=None,
    )


def _row(symbol: str | None) -> EarningsRow:
    return EarningsRow(
        symbol=symbol,
        realized=Decimal("-12.5"),
        unrealized=None,
        dividends=ZERO,
        interest=ZERO,
        fees=ZERO,
        other=ZERO,
        total=Decimal("1234.5"),
        trades=3,
    )


def _lot(symbol: str) -> ClosedLot:
    at = Timestamp.parse("2026-05-01T10:00:00Z")
    return ClosedLot(
        symbol=symbol,
        side="long",
        qty=Decimal(3),
        cost_basis=Decimal(30),
        proceeds=Decimal(40),
        realized=Decimal(10),
        opened_at=at,
        closed_at=at,
        holding_time_s=ZERO,
    )


def _page(symbol: str = "AAPL", days: Sequence[EquityDay] = (), lots: int = 1, title: str = "Mine") -> str:
    earned = Earnings(rows=(_row(symbol),), total=_row(None), reconciliation=None)
    return page(title, "now", days, stats([], [], 0), earned, [_lot(symbol)] * lots)


def test_what_rounds_to_zero_has_neither_a_sign_nor_a_color() -> None:
    row = _row("AAPL").model_copy(update={"realized": Decimal("-0.004"), "fees": Decimal("0.004")})
    shown = page("Mine", "now", (), None, Earnings(rows=(row,), total=row, reconciliation=None), [])
    assert "<td>0.00</td>" in shown
    assert "-0.00" not in shown
    assert "+0.00" not in shown


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "style") or name.startswith("on")]
        if tag not in ("meta", "line", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_markup_in_a_symbol_or_a_title_is_text(tmp_path: object) -> None:
    text = _page(EVIL, title=EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") >= 3
    assert "script" not in _read(text).tags


@settings(max_examples=25)
@given(st.text(max_size=30))
def test_no_symbol_whatever_adds_a_tag_or_an_attribute(symbol: str) -> None:
    plain, strange = _read(_page("AAPL")), _read(_page(symbol))
    assert strange.tags == plain.tags
    assert strange.links == plain.links == []


def test_nothing_is_fetched_from_anywhere() -> None:
    text = _page(days=[_day(0, "100"), _day(1, "101")])
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert 'name="viewport"' in text
    assert "prefers-color-scheme:dark" in text


def test_only_the_last_trades_are_shown_and_it_is_said() -> None:
    text = _page(lots=620)
    assert "The last 500 of 620." in text
    assert text.count("2026-05-01</td><td>2026-05-01") == 500


def test_without_equity_or_trades_there_is_a_page_all_the_same() -> None:
    earned = Earnings(rows=(), total=_row(None), reconciliation=None)
    text = page("Mine", "now", [], None, earned, [])
    assert "no equity to show yet" in text
    assert "Nothing was closed yet." in text


@pytest.mark.parametrize("equity", [["100"], ["100", "100"], ["100", "90", "120.5"], ["0.0001", "0.0002"]])
def test_the_picture_is_a_png_of_its_size_whatever_the_curve(equity: list[str]) -> None:
    days = [date.fromordinal(739_000 + number) for number in range(len(equity))]
    image = Image.open(io.BytesIO(equity_png(days, [Decimal(amount) for amount in equity], "Equity")))
    assert (image.format, image.size) == ("PNG", (1200, 630))
    assert len(image.convert("RGB").getcolors(1 << 20) or []) > 2


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_every_point_lies_within_the_box_and_levels_span_the_values(values: list[float]) -> None:
    days = [date.fromordinal(739_000 + number) for number in range(len(values))]
    box = Box(10, 20, 110, 220)
    curve = lay_out(days, values, box)
    for x, y in curve.points:
        assert box.left - 1e-6 <= x <= box.right + 1e-6
        assert box.top - 1e-6 <= y <= box.bottom + 1e-6
    assert len(curve.days) <= 5


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [(0, 10, [0, 5, 10]), (99_700, 102_400, [99_000, 100_000, 101_000, 102_000, 103_000]), (5, 5, [5])],
)
def test_levels_are_round_numbers(low: float, high: float, levels: list[float]) -> None:
    assert round_levels(low, high) == levels
