"""``alpacli doctor``: looks at everything that a command depends on, and says of each what is wrong and what mends it.

A check never fails the others: without keys, offline, with a broken profile file there is still an answer for all the rest.
What needs the network runs at the same time, each within the timeouts of a request; one account request, one clock request
and two quotes are all that is sent.
"""

import os
import platform
import shutil
import socket
import ssl
import stat
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import typer

from alpacli.cli.guide import engine_is_compiled
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import AlpacliError, AuthenticationError, ConfigError, StoreUnavailable
from alpacli.ports import Clock, Store
from alpacli.settings import Flags, Settings, load, user_dir

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.broker.client import AlpacaClient
    from alpacli.render.text import Frame

Status = Literal["ok", "warn", "fail", "skip"]

_MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "–"}
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_MOST_SKEW_S: Final = 2.0
_SLOW_STORE_MS: Final = 50.0
_LOOKS: Final = 3  # the first one connects
_NARROW: Final = 80
_FULL: Final = 64 << 20


class Finding(Model):
    """One check: ``status`` ok, warn (works, not well), fail, or skip (could not be checked); ``fix`` says what to do."""

    check: str
    status: Status
    found: str
    fix: str


class _Found(NamedTuple):
    status: Status
    found: str
    fix: str = ""


def doctor(run: Run) -> None:
    """Check keys, network, clock, store, streams, files and terminal; say what to mend. Exit 3 or 6 when something fails."""
    view = run.promised(View(list[Finding], _table))
    settings, broken = _settings(run)
    findings: list[Finding] = []
    worst = 0
    for check, found, code in _all(run, settings, broken):
        findings.append(Finding(check=check, status=found.status, found=found.found, fix=found.fix))
        if found.status == "fail":
            worst = worst or code
    run.show_value(view, findings)
    if worst:
        raise typer.Exit(worst)  # the findings are printed already, and say more than an error could


def _settings(run: Run) -> tuple[Settings, ConfigError | None]:
    """Return the settings, or the defaults and why they could not be had."""
    try:
        return run.settings(), None
    except ConfigError as error:
        kept = {name: os.environ[name] for name in ("HOME", "ALPACLI_STATE_DIR") if name in os.environ}
        defaults = load(Flags(sim=run.options.sim), env={**kept, "ALPACLI_CONFIG_DIR": os.devnull})
        config_dir = os.environ.get("ALPACLI_CONFIG_DIR") or user_dir("config", os.environ)
        return defaults._replace(config_dir=config_dir), error


def _all(run: Run, settings: Settings, broken: ConfigError | None) -> Iterator[tuple[str, _Found, int]]:
    """Yield each check with the exit code of its failure."""
    yield "python", _python(), 1
    yield "settings", _configuration(settings, broken), 3
    yield "files", _files(settings), 3
    yield "state", _state(settings), 3
    yield "store", _store(settings, run.clock), 6
    if broken is None:
        yield from _account(run, settings)
        if settings.key_pair is not None:
            yield "trading", _halted(settings), 3
    yield (
        "network",
        _Found("skip", "not checked: the settings have to be mended first")
        if broken
        else _Found("skip", "not needed: the offline exchange is in this process")
        if settings.sim
        else _network(settings),
        6,
    )
    if broken is None and not settings.sim:
        yield "streams", _streams(settings), 6
        yield "hub", _hubs(settings), 6
    yield "terminal", _terminal(run), 1


# ------------------------------------------------------------------------------------------------- this machine


def _python() -> _Found:
    import alpacli

    found = f"Python {platform.python_version()} in {sys.prefix}, alpacli {alpacli.__version__}"
    found += f"{' (exchange compiled)' if engine_is_compiled() else ''}, alpaca-py {version('alpaca-py')}"
    return _Found("ok", found)


def _configuration(settings: Settings, broken: ConfigError | None) -> _Found:
    if broken is not None:
        return _Found("fail", broken.message, broken.hint)
    try:
        pair = settings.require_keys()
    except ConfigError as error:
        return _Found("fail", error.message, error.hint)
    profile = f"profile {settings.profile}, " if settings.profile else ""
    found = f"{profile}key {pair.key_id[:4]}… from {pair.origin}, {settings.base_url}"
    if settings.apart:
        return _Found(
            "warn",
            f"{found}, and market data from Alpaca's hosts",
            f"set {' and '.join(sorted(settings.apart))} to the same server, or to Alpaca's to mean it",
        )
    return _Found("ok", found)


def _files(settings: Settings) -> _Found:
    """Check that nobody else can read what may hold keys, and that every profile is as it should be."""
    from alpacli.profiles import read_all

    seen: list[str] = []
    for path in (os.path.join(settings.config_dir, "config.toml"), os.path.join(os.getcwd(), ".env")):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        seen.append(path)
        if stat.S_IMODE(mode) & 0o077:
            return _Found("warn", f"others can read {path}", f"chmod 600 {path}")
    from alpacli.broker.risk import read_rules

    try:
        read_rules(settings.config_dir, settings.profile)
    except AlpacliError as error:
        return _Found("fail", error.message, error.hint)
    try:
        mistakes = [*read_all(settings.config_dir).mistakes.values()]
    except ConfigError as error:
        mistakes = [error]
    if mistakes:  # in another profile: one in the chosen one is told with the settings
        return _Found("warn", "; ".join(mistake.message for mistake in mistakes), mistakes[0].hint)
    return _Found(
        "ok", ", ".join(seen) if seen else f"none (they would be {settings.config_dir}/config.toml and .env here)"
    )


def _state(settings: Settings) -> _Found:
    directory = settings.state_dir
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        probe = os.path.join(directory, f".doctor-{os.getpid()}")
        with open(probe, "wb") as file:
            file.write(b"alpacli")
            file.flush()
            os.fsync(file.fileno())
        os.unlink(probe)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return _Found("fail", f"cannot write in {directory}: {error.strerror}", "free it, or set ALPACLI_STATE_DIR")
    if free < _FULL:
        return _Found("warn", f"{directory}: only {free >> 20} MB free", "make room on this disk")
    return _Found("ok", f"{directory}, {free >> 30} GB free")


def _store(settings: Settings, clock: Clock) -> _Found:
    from alpacli.ports import SystemRandomness
    from alpacli.runtime import budget_rules
    from alpacli.store import open_store

    warnings: list[str] = []
    try:
        store = open_store(settings, clock, SystemRandomness(), warnings.append)
        try:
            took_ms = min(_look(store, settings.scope, clock) for _ in range(_LOOKS))
            store.drop(f"{settings.scope}:~doctor")
            report = store.limits(budget_rules(settings))
            kind = store.kind
        finally:
            store.close()
    except (StoreUnavailable, ConfigError) as error:
        return _Found("fail", error.message, error.hint)
    if warnings:
        where = "REDIS_URL and the server it names" if settings.redis_url else "the state directory"
        return _Found("warn", warnings[0], f"commands still answer, but share less: check {where}")
    used = f"{report.used} of {report.limit} requests used in {report.window_s:g} s"
    breaker = report.worst
    if breaker.state != "closed":
        return _Found(
            "warn",
            f"{kind}: the circuit breaker of the {breaker.host} host is {breaker.state}",
            f"wait {breaker.retry_in_s:.0f} s",
        )
    if report.waiting:
        used += f", {len(report.waiting)} waiting"
    found = f"{kind}, {took_ms:.1f} ms, {used}"
    forgetting = _forgetting(settings) if kind == "redis" else ""
    if forgetting:
        return _Found(
            "warn",
            f"{found}; {forgetting}",
            "a halt and the shared budget live there: give it maxmemory-policy noeviction and appendonly yes",
        )
    return _Found(
        "warn" if took_ms > _SLOW_STORE_MS else "ok", found, "the store is slow" if took_ms > _SLOW_STORE_MS else ""
    )


def _look(store: Store, scope: str, clock: Clock) -> float:
    """Return how long the store takes for one operation, in milliseconds."""
    began = clock.monotonic()
    store.put(f"{scope}:~doctor", b"1")
    store.get(f"{scope}:~doctor", 60.0)
    return (clock.monotonic() - began) / 2 * 1000


def _forgetting(settings: Settings) -> str:
    from alpacli.store.redis import RedisStore

    assert settings.redis_url is not None  # noqa: S101 # the store said that it is there
    store = RedisStore(settings.redis_url.reveal())
    try:
        return store.forgetting()
    finally:
        store.close()


def _terminal(run: Run) -> _Found:
    if not sys.stdout.isatty():
        return _Found("ok", "standard output is not a terminal: plain text, no color")
    console = run.printer.console
    colors = console.color_system or "no"
    found = f"{os.environ.get('TERM', 'no TERM')}, {console.width} columns, {colors} colors, {console.encoding}"
    if "utf" not in console.encoding.lower():
        return _Found("warn", found, "use a UTF-8 locale, like LANG=C.UTF-8, to see charts as they are meant")
    if console.is_dumb_terminal:
        return _Found("warn", found, "set TERM (xterm-256color) to see live tables")
    if console.width < _NARROW:
        return _Found("warn", found, "tables leave columns out below 80")
    return _Found("ok", found)


# --------------------------------------------------------------------------------------------------- the account


def _account(run: Run, settings: Settings) -> Iterator[tuple[str, _Found, int]]:
    if settings.key_pair is None:
        yield "keys", _Found("skip", "not checked: there are none"), 3
        return
    from alpacli.runtime import open_client

    with open_client(settings, label="alpacli doctor", warn=_told_already) as client:
        keys, code = _keys(client)
        yield "keys", keys, code
        if keys.status != "ok":
            return
        yield "clock", _clock_skew(client, run.clock), 3
        yield "market data", _plan(client), 6


def _halted(settings: Settings) -> _Found:
    from alpacli.runtime import open_halt

    halt = open_halt(settings, _told_already).state()
    if halt is None:
        return _Found("ok", "orders are taken: there is no halt")
    since = f"{datetime.fromtimestamp(halt.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    who, why = f" by {halt.by}" if halt.by else "", f": {halt.reason}" if halt.reason else ""
    return _Found("warn", f"halted since {since}{who}{why}", "`alpacli resume` ends the halt")


def _told_already(text: str) -> None:
    """Drop the warning of a store that failed: the line about the store says it."""


def _keys(client: "AlpacaClient") -> tuple[_Found, int]:
    try:
        account = client.get_account(use_cache=False)
    except AuthenticationError as error:
        return _Found("fail", f"the server refuses the keys: {error.message}", "`alpacli login` takes another pair"), 3
    except AlpacliError as error:
        return _Found("fail", error.message, error.hint), error.exit_code
    if account.trading_blocked or account.account_blocked:
        return _Found("fail", f"account {account.account_number} is blocked", "see Alpaca's dashboard"), 4
    return _Found("ok", f"account {account.account_number}, {account.status}"), 3


def _clock_skew(client: "AlpacaClient", clock: Clock) -> _Found:
    """Compare the clocks; the server's is read somewhere between asking and hearing."""
    from alpacli.wire import rest

    asked = clock.time()
    try:
        theirs = client.read(rest.clock(), use_cache=False).value.timestamp.timestamp()
    except AlpacliError as error:
        return _Found("skip", f"the server's time could not be read: {error.message}")
    heard = clock.time()
    skew = asked - theirs if theirs < asked else max(0.0, theirs - heard)
    direction = "ahead of" if theirs < asked else "behind"
    if skew > _MOST_SKEW_S:
        return _Found(
            "warn",
            f"this machine is {skew:.1f} s {direction} the exchange",
            "set its clock (systemd-timesyncd, chrony)",
        )
    return _Found("ok", f"within {max(skew, heard - asked):.1f} s of the exchange")


def _plan(client: "AlpacaClient") -> _Found:
    """Ask for one quote of each feed: what the account's plan includes is not said anywhere else."""
    from alpacli.ports import Request
    from alpacli.wire.rest import Call

    allowed: list[str] = []
    for feed in ("sip", "iex"):
        query = (("symbols", "SPY"), ("feed", feed))
        call = Call("quotes", Request("GET", "/v2/stocks/quotes/latest", query, host="data"), _unread)
        try:
            client.read(call, use_cache=False)
        except AuthenticationError:
            continue
        except AlpacliError as error:
            if error.status is not None and error.status < 500 and error.status != 429:
                continue
            return _Found("fail", f"market data: {error.message}", error.hint)
        allowed.append(feed)
    if "sip" in allowed:
        return _Found("ok", "the plan includes sip, all exchanges in real time")
    if allowed:
        return _Found("ok", "the plan includes iex in real time, and sip 15 minutes late")
    return _Found("warn", "the plan includes no real-time stock data", "`--feed delayed_sip` streams 15 minutes late")


# --------------------------------------------------------------------------------------------------- the network


def _unread(body: bytes) -> None:
    """Take an answer of which only the status matters."""


def _network(settings: Settings) -> _Found:
    """Look up, connect and shake hands with each host."""
    urls = list(dict.fromkeys((settings.base_url, settings.data_url, settings.stream_url)))
    with ThreadPoolExecutor(len(urls)) as pool:
        found = list(pool.map(lambda url: _reach(url, settings.connect_timeout_s), urls))
    for one in found:
        if one.status == "fail":
            return one
    return _Found("ok", "; ".join(one.found for one in found))


def _reach(url: str, timeout_s: float) -> _Found:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme in ("https", "wss")
    port = parts.port or (443 if secure else 80)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            if not secure:
                return _Found("ok", f"{host}:{port} answers")
            with ssl.create_default_context().wrap_socket(connection, server_hostname=host) as wrapped:
                return _Found("ok", f"{host} answers, {wrapped.version()}")
    except socket.gaierror as error:
        return _Found(
            "fail", f"{host}: the name cannot be looked up: {error.strerror}", "check the network and its DNS"
        )
    except ssl.SSLError as error:
        return _Found(
            "fail",
            f"{host}: TLS fails: {error.reason}",
            "check this machine's clock and certificates, or a proxy in between",
        )
    except OSError as error:
        return _Found("fail", f"{host}:{port}: {error.strerror or error}", "check the network, a firewall or a proxy")


def _streams(settings: Settings) -> _Found:
    """Open and leave a stream without logging in: that takes no place from the one that the account has."""
    import asyncio

    from alpacli.live import greet

    try:
        greeting = asyncio.run(greet(settings))
    except AlpacliError as error:
        return _Found("fail", error.message, error.hint)
    return _Found("ok", f"WebSocket to {urlsplit(settings.stream_url).hostname}: {greeting}")


def _hubs(settings: Settings) -> _Found:
    """Tell which shared connections run; one that does not answer is a warning."""
    if settings.key_pair is None:
        return _Found("skip", "not checked: there are no keys")
    from alpacli.live import upstream
    from alpacli.streams.feeds import FEEDS
    from alpacli.streams.local import is_listening, meeting

    alive: list[str] = []
    dead: list[str] = []
    for name, feed in FEEDS.items():
        with suppress(OSError, AlpacliError):
            place = meeting(upstream(settings, feed))
            if os.path.exists(place.socket):
                (alive if is_listening(place) else dead).append(name)
    if dead:
        return _Found("ok", f"left over from a hub that was killed: {', '.join(dead)}; the next stream replaces it")
    return _Found("ok", f"shared connections: {', '.join(alive)}" if alive else "no shared connection is open")


def _table(findings: Sequence[Finding], frame: "Frame") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    from alpacli.render.grid import page

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        said = Text(finding.found)
        if finding.fix:
            said.append(f"\n{finding.fix}", style="bold" if finding.status != "ok" else "dim")
        table.add_row(Text(f"{_MARKS[finding.status]} {finding.status}", style=style), Text(finding.check), said)
    return page(table, frame)
