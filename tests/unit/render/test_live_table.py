"""The live table at every size: nothing too wide, the selected row and the footer always there."""

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from alpacli.domain.board import Board
from alpacli.render.live_table import SORTS, Look, live_table, sort_rows, sparkline, visible_rows
from alpacli.streams.events import Status
from alpacli.wire.frames import decode

NOW = 1_767_366_000_000_000_000
STATUS = Status("iex", "live", shared=True, sim=False, reconnects=2, gaps=1, conflated=0)


def board(symbols: int) -> Board:
    made = Board([f"SYM{n}" for n in range(symbols)])
    frames = ",".join(
        f'{{"T":"q","S":"SYM{n}","bp":{100 + n}.25,"bs":100,"ap":{100 + n}.5,"as":20000,"t":"2026-01-02T15:00:00Z"}},'
        f'{{"T":"t","S":"SYM{n}","p":{100 + n}.375,"s":{n + 1},"i":{n},"t":"2026-01-02T15:00:00Z"}}'
        for n in range(symbols)
    )
    made.apply(decode(f"[{frames}]").ticks, NOW)
    return made


def screen(symbols: int, width: int, height: int, look: Look = Look(), status: Status = STATUS) -> list[str]:  # noqa: B008 # a NamedTuple: the one default cannot be changed by anybody
    made = board(symbols)
    rows = sort_rows(made.rows(NOW), look.sort)
    drawn = live_table(rows, made.totals(NOW), status, look, width=width, height=height, ascii_only=False)
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200, 250])
@pytest.mark.parametrize("height", [5, 10, 24, 60])
@pytest.mark.parametrize("symbols", [1, 7, 500])
def test_it_fits_and_shows_the_selected_symbol_and_the_footer(width: int, height: int, symbols: int) -> None:
    for selected in {0, symbols // 2, symbols - 1}:
        lines = screen(symbols, width, height, Look(selected=selected))
        assert len(lines) == height
        assert all(len(line) <= width for line in lines)
        assert any(line.startswith(f"SYM{selected} ") for line in lines)
        assert lines[-2].startswith("iex  live")
        assert lines[-1].startswith("q quit")


@pytest.mark.parametrize(
    ("width", "there", "not_there"),
    [(40, "Last", "Bid"), (80, "Bid × size", "VWAP"), (138, "VWAP", "Trend"), (200, "Trend", "nothing")],
)
def test_columns_come_with_the_width(width: int, there: str, not_there: str) -> None:
    header = screen(3, width, 10)[0]
    assert there in header
    assert not_there not in header


def test_a_row_has_the_numbers_of_its_symbol() -> None:
    line = screen(3, 200, 10)[2]
    assert line.split()[:9] == ["SYM1", "101.38", "101.25", "×", "100", "101.50", "×", "20.00k", "24.7"]


def test_the_footer_tells_of_the_exchange_of_trouble_and_of_what_is_typed() -> None:
    status = STATUS._replace(sim=True, conflated=12_345, state="reconnecting in 2.0 s (attempt 3)")
    lines = screen(2, 250, 8, Look(), status)
    assert lines[-2].startswith("OFFLINE EXCHANGE  iex  reconnecting in 2.0 s (attempt 3)  shared connection")
    assert "12,345 conflated" in lines[-2]
    assert screen(2, 80, 8, Look(adding="TS"))[-1].startswith("add symbol: TS_")
    assert screen(2, 80, 8, Look(), STATUS._replace(message="the server refused"))[-1] == "the server refused"
    assert "paused" in screen(2, 80, 8, Look(paused=True))[-2]
    assert "press a to add one" in "\n".join(screen(0, 80, 8))


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 120])
def test_of_a_state_that_is_too_long_whole_parts_go_what_matters_least_first(width: int) -> None:
    for sim in (False, True):
        everything = screen(3, 250, 8, Look(), STATUS._replace(sim=sim))[-2].split("  ")
        shown = screen(3, width, 8, Look(), STATUS._replace(sim=sim))[-2].split("  ")
        assert shown == [part for part in everything if part in shown], "no part is cut"
        assert {"2 reconnects", "1 gaps", "1/3"} <= set(shown)
        if len(shown) < len(everything):
            assert "shared connection" not in shown
    calm = screen(3, 80, 8, Look(), STATUS._replace(sim=True, reconnects=0, gaps=0))[-2]
    assert calm.endswith("0 gaps  1/3")


def test_every_sort_keeps_every_row() -> None:
    rows = board(12).rows(NOW)
    for sort in SORTS:
        assert sorted(row.symbol for row in sort_rows(rows, sort)) == sorted(row.symbol for row in rows)
    assert sort_rows(rows, "volume")[0].symbol == "SYM11"
    assert sort_rows(rows, "symbol")[2].symbol == "SYM10"


def test_a_sparkline_goes_from_its_lowest_to_its_highest() -> None:
    assert sparkline([1, 2, 3], 10) == "▁▄█"
    assert sparkline([5, 5], 10) == "▄▄"
    assert sparkline([], 10) == ""
    assert len(sparkline(list(range(100)), 10)) == 10


def test_only_visible_rows_are_built() -> None:
    made = board(500)
    drawn = live_table(made.rows(NOW), made.totals(NOW), STATUS, Look(), width=80, height=20, ascii_only=False)
    lines = [line for line in drawn.renderables if isinstance(line, Text)]
    assert len(lines) == 20
    assert visible_rows(20) == 17


def row_of(symbol: str, *, last: str = "100.25", size: str = "100", status: str = "") -> list[str]:
    made = Board(["*"])
    time = "2026-01-02T15:00:00Z"
    made.apply(
        decode(
            f'[{{"T":"t","S":"{symbol}","p":{last},"s":{size},"i":1,"t":"{time}"}},'
            f'{{"T":"q","S":"{symbol}","bp":{last},"bs":{size},"ap":{last},"as":{size},"t":"{time}"}}{status}]'
        ).ticks,
        NOW,
    )
    drawn = live_table(made.rows(NOW), made.totals(NOW), STATUS, Look(), width=80, height=6, ascii_only=False)
    return [str(line) for line in drawn.renderables][1].split()


def test_an_option_is_told_from_its_neighbour_at_any_width() -> None:
    assert row_of("AAPL260116C00190000")[0] == "AAPL260116C00190000"
    assert row_of("A" * 15 + "B" * 15)[0] == "A" * 12 + "…" + "B" * 11


def test_a_halt_is_marked_on_the_longest_symbol_too() -> None:
    halt = (
        ',{"T":"s","S":"AAPL260116C00190000","sc":"H","sm":"Halt","rc":"","rm":"","t":"2026-01-02T15:00:00Z","z":"C"}'
    )
    assert row_of("AAPL260116C00190000", status=halt)[:2] == ["AAPL260116C00190000", "H"]


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ("0.00000012", "1.2e-07"),
        ("0.0125", "0.0125"),
        ("104345.67", "104,345.67"),
        ("12345678.9", "12.35M"),
        ("1e15", "1000T"),
    ],
)
def test_a_price_is_never_cut(last: str, shown: str) -> None:
    assert row_of("X", last=last)[1] == shown


@pytest.mark.parametrize(
    ("size", "shown"), [("9999", "9,999"), ("999999", "1.00M"), ("12345", "12.35k"), ("999994999", "999.99M")]
)
def test_a_size_takes_the_next_unit_when_rounding_gets_there(size: str, shown: str) -> None:
    assert shown in row_of("X", size=size)


def test_control_characters_of_a_symbol_or_a_message_do_not_reach_the_terminal() -> None:
    assert row_of("A\\u001b[31mB")[0] == "A�[31mB"
    assert screen(1, 80, 6, Look(), STATUS._replace(message="a\x1b[2Jb\nc"))[-1] == "a�[2Jb�c"
