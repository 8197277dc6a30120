"""Lines that go into a running stream, and lines that come out: commands on standard input, ``--fields`` and ``--jq``."""

import json
import os
import threading
from collections.abc import Callable, Iterable

from alpacli.cli.options import Options
from alpacli.domain.series import check_symbol
from alpacli.domain.ticks import CHANNELS, Interest, fields_of
from alpacli.errors import UsageError
from alpacli.streams.feeds import Feed, check_interest


def take_lines(descriptor: int, take: Callable[[bytes], None]) -> None:
    """Read lines in a thread until there are no more: a pipe, a file and a socket are read alike."""

    def read() -> None:
        unread = b""
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                if line.strip():
                    take(line)

    threading.Thread(target=read, daemon=True).start()


def read_command(line: bytes, feed: Feed, interest: Interest, *, replay: bool = False) -> tuple[str, Interest]:
    """Read one command: its action, and what it is about; channels that it does not name are those of ``interest``.

    Raises:
        UsageError: it is no command.
    """
    example = 'write {"action": "subscribe", "symbols": ["AAPL"]}, unsubscribe or ping'
    try:
        command = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("a line on standard input is not JSON", example) from None
    if not isinstance(command, dict) or command.get("action") not in ("subscribe", "unsubscribe", "ping"):
        raise UsageError("a line on standard input is no command", example)
    if command["action"] == "ping":
        return "ping", Interest()
    symbols = command.get("symbols")
    channels = command.get("channels", list(interest.channels))
    if not _are_words(symbols) or not symbols or not _are_words(channels):
        raise UsageError(f"{command['action']} needs symbols", example)
    unknown = [name for name in channels if name not in feed.channels or name not in CHANNELS]
    if unknown:
        raise UsageError(f"the {feed.name} feed has no {unknown[0]}", f"it has {', '.join(feed.channels)}")
    return command["action"], interest_of(symbols, channels, feed, replay=replay or command["action"] != "subscribe")


def interest_of(symbols: Iterable[str], channels: Iterable[str], feed: Feed, *, replay: bool) -> Interest:
    """Return what is added to a stream; a ``replay`` may hold symbols of any feed.

    Raises:
        UsageError: one is no symbol, or on another feed, so that nothing would ever come.
    """
    checked = [symbol if symbol == "*" else check_symbol(symbol) for symbol in symbols]
    wanted = Interest(dict.fromkeys(channels, checked))
    if not replay:
        check_interest(feed, wanted)
    return wanted


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)


def check_fields(options: Options, interest: Interest) -> None:
    """Refuse a name in ``--fields`` that no message of ``interest`` has: it would be null for ever.

    Raises:
        UsageError: there is no such field, or none is named.
    """
    if options.fields is None:
        return
    names, known = _names(options.fields), fields_of(interest.channels)
    unknown = [name for name in names if name not in known]
    if not names:
        raise UsageError("--fields names no field", "give names separated by commas, like --fields symbol,price")
    if unknown:
        raise UsageError(f"there is no field {unknown[0]!r}", f"fields: {', '.join(known)}")


def _names(fields: str) -> list[str]:
    return [name.strip() for name in fields.split(",") if name.strip()]


def line_changer(options: Options) -> Callable[[bytes], bytes] | None:
    """Return what ``--fields`` and ``--jq`` do to a block of lines."""
    if options.fields is None and options.jq is None:
        return None
    from alpacli.render import machine

    names = _names(options.fields or "")
    if options.jq is not None:
        machine.check_jq(options.jq)  # before anything is connected

    def change(lines: bytes) -> bytes:
        changed: list[str] = []
        for line in lines.splitlines():
            text = line.decode()
            if names:
                tree = machine.parse(line)
                text = machine.dump({name: tree.get(name) for name in names})
            changed.append(machine.jq(text, options.jq) if options.jq is not None else text + "\n")
        return "".join(changed).encode("utf-8", "backslashreplace")

    return change


def first_lines(lines: bytes, count: int) -> bytes:
    end = -1
    for _ in range(count):
        end = lines.index(b"\n", end + 1)
    return lines[: end + 1]
