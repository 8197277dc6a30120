"""The live table as a person sees it: the installed program in a pseudo-terminal, read by an emulator."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.alpacli import Alpacli
from tests.support.terminal import Terminal


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*args: str, **size: Any) -> Terminal:
        opened.append(Terminal(Alpacli(tmp_path), *args, **size))
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()


def _has(symbol: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(line.startswith(symbol) and "×" in line for line in lines)


def test_a_table_with_prices_keys_and_a_clean_end(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "MSFT", "--sim")
    assert terminal.shows(_has("AAPL"))
    assert terminal.shows(_has("MSFT"))
    assert terminal.shows(lambda lines: "OFFLINE EXCHANGE  iex  live" in lines[-2])
    assert terminal.shows(lambda lines: any(line.startswith("AAPL") and "%" in line for line in lines))
    terminal.press("anvdax\x7f\r")
    assert terminal.shows(_has("NVDA"))
    terminal.press("\x1b[F")
    terminal.press("d")
    assert terminal.shows(lambda lines: not any(line.startswith("NVDA") for line in lines))
    terminal.press("s")
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    terminal.press("p")
    assert terminal.shows(lambda lines: "paused" in lines[-2])
    terminal.press("p")
    assert terminal.shows(lambda lines: "live" in lines[-2])
    terminal.press("q")
    assert terminal.ended()


def test_it_follows_the_size_of_the_terminal(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim", columns=60)
    assert terminal.shows(_has("AAPL"))
    assert "VWAP" not in terminal.lines[0]
    terminal.resize(180, 8)
    assert terminal.shows(lambda lines: "VWAP" in lines[0] and lines[7].startswith("q quit"))
    terminal.resize(40, 6)
    assert terminal.shows(lambda lines: lines[5].startswith("q quit") and lines[0].startswith("Symbol"))
    terminal.press("q")
    assert terminal.ended()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(open_terminal: Callable[..., Terminal], number: signal.Signals) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim")
    assert terminal.shows(_has("AAPL"))
    terminal.process.send_signal(number)
    assert terminal.ended()


def test_the_selected_symbol_stays_selected_when_the_order_changes(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "TSLA", "AAPL", "MSFT", "--sim")
    assert terminal.shows(_has("MSFT"))
    assert terminal.shows(lambda lines: "1/3" in lines[-2])
    terminal.press("s")  # by symbol: TSLA goes from the first row to the last
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    assert terminal.shows(lambda lines: "3/3" in lines[-2])
    terminal.press("d")
    assert terminal.shows(lambda lines: not any(line.startswith("TSLA") for line in lines))
    assert terminal.shows(_has("AAPL"))
    assert terminal.shows(_has("MSFT"))
    terminal.press("q")
    assert terminal.ended()


def test_a_symbol_that_is_added_to_a_long_list_is_selected_and_so_seen(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "MSFT", "TSLA", "AMZN", "META", "--sim", lines=6)  # room for three
    assert terminal.shows(_has("AAPL"))
    assert "1/5" in terminal.lines[-2]
    terminal.press("anvda\r")
    assert terminal.shows(_has("NVDA"))
    assert terminal.shows(lambda lines: "6/6" in lines[-2])
    terminal.press("q")
    assert terminal.ended()


def test_several_symbols_can_be_added_at_once(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim")
    assert terminal.shows(_has("AAPL"))
    terminal.press("anvda tsla, msft,\r")
    for symbol in ("NVDA", "TSLA", "MSFT"):
        assert terminal.shows(_has(symbol))
    assert terminal.shows(lambda lines: "4/4" in lines[-2])
    terminal.press("a , \r")
    terminal.press("q")
    assert terminal.ended()


def test_what_can_never_come_is_not_added_and_said(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim", columns=120)
    assert terminal.shows(_has("AAPL"))
    terminal.press("abtc/usd\r")
    assert terminal.shows(lambda lines: "the iex feed has no BTC/USD: that is on crypto" in "\n".join(lines))
    assert not any(line.startswith("BTC") for line in terminal.lines)
    terminal.press("axxxx\r")
    assert terminal.shows(lambda lines: "no price of XXXX is known" in "\n".join(lines))
    terminal.press("q")
    assert terminal.ended()


def test_suspending_gives_the_terminal_back_and_coming_back_takes_it_again(
    open_terminal: Callable[..., Terminal],
) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim")
    assert terminal.shows(_has("AAPL"))
    terminal.process.send_signal(signal.SIGTSTP)
    assert terminal.shows(lambda _: terminal.times_entered == 2)
    terminal.press("s")
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    terminal.press("q")
    assert terminal.ended()


def test_order_updates_are_told_line_by_line(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "--updates", "--sim", "--verbose", "--duration", "3")
    assert terminal.shows(lambda lines: any("OFFLINE EXCHANGE" in line for line in lines))
    assert terminal.process.wait(20) == 0
    assert terminal.times_entered == 0


def test_an_unknown_feed_or_lost_stream_is_told_after_the_table_is_gone(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--no-hub", "--reconnect", "0")
    assert terminal.process.wait(20) == 3  # no keys
