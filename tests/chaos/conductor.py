"""A bad day, conducted by dice: what serves and what uses is killed, paused and started again; then all must add up.

The exchange, Redis, the gateway, the hub, readers, traders and streams are processes of their own, with one account.
``Day.run`` injects faults and counts them; ``Day.proofs`` looks at what is left: the exchange's book and its request log, the
journal, the files, the processes.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.alpacli import PROGRAM, Alpacli
from tests.support.valkey import Server, free_port

from alpacli.store.journal import Journal

_NAMES: Final = ("cli-", "lib-", "gate-")
"""How the client order IDs begin that the commands, the trader and the caller choose."""
LIMIT: Final = 60
RESERVE: Final = 12
WINDOW_S: Final = 5.0
_BREAKER_S: Final = 2.0
_KEY: Final = "PKCHAOS00000000000001"
_PR_SET_PDEATHSIG: Final = 1
NETWORK: Final[Sequence[Mapping[str, object]]] = (
    {"kind": "drop", "times": 2},
    {"kind": "drop", "how": "frame", "times": 1},
    {"kind": "mute", "times": 1},
    {"kind": "garbage", "how": "syntax", "times": 2},
    {"kind": "garbage", "how": "truncated", "times": 1},
    {"kind": "duplicate", "times": 5},
    {"kind": "reorder", "times": 5},
    {"kind": "delay", "seconds": 0.5, "times": 5},
    {"kind": "refuse", "code": 406, "times": 1},
    {"kind": "reject", "status": 503, "times": 1},
)


class Part:
    """A process that is started again whenever it has ended; what it says is kept. ``port`` is where it listens."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], folder: Path, port: int | None = None
    ) -> None:
        self.name = name
        self.port = port
        self._command, self._env, self._folder = command, env, folder
        self.process: subprocess.Popen[bytes] | None = None
        self.codes: Counter[int] = Counter()
        self.start()

    def start(self) -> None:
        with (
            (self._folder / f"{self.name}.out").open("ab") as out,
            (self._folder / f"{self.name}.err").open("ab") as err,
        ):
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call to prctl, and no other way to die with the parent
            )

    @property
    def is_up(self) -> bool:
        if self.port is None:
            return self.process is not None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def has_ended(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            self.codes[self.process.returncode] += 1
            self.process = None
        return self.process is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.has_ended()

    def stop(self) -> None:
        """Ask it to end, and insist after a while: that counts as exit code 99."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.codes[99] += 1
                self.kill()
        self.has_ended()


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Day:
    """Everything that takes part, and what was done to it (``faults``). Use it in ``with``."""

    def __init__(self, root: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.figures: dict[str, int] = {}
        self.faults: Counter[str] = Counter()
        self.placed: set[str] = set()
        self.canceled: set[str] = set()
        self.bad_ends: list[str] = []
        self.root = root
        self._secrets = [f"chaos-secret-{seed}-{os.urandom(6).hex()}", f"chaos-password-{os.urandom(6).hex()}"]
        self._port, self._gateway_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._orders = 0
        self._struck: set[str] = set()
        self._resume: list[tuple[float, Callable[[], None]]] = []

    def __enter__(self) -> "Day":
        secret, password = self._secrets
        self._short = Path("/tmp") / f"alpacli-chaos-{os.getpid()}"
        (self.root / "run").mkdir(parents=True)
        self._short.symlink_to(self.root / "run")  # the path of a socket is short
        kept = ("--appendonly", "yes") if self.dice.random() < 0.5 else ()  # else it comes back empty, as a cache does
        self.redis = Server(self.root, "--requirepass", password, *kept)
        self.user = Alpacli(
            self.root,
            {
                "ALPACA_API_KEY": _KEY,
                "ALPACA_SECRET_KEY": secret,
                "ALPACA_BASE_URL": self.url,
                "ALPACA_DATA_URL": self.url,
                "ALPACA_STREAM_URL": self.url.replace("http", "ws"),
                "REDIS_URL": f"redis://:{password}@127.0.0.1:{self.redis.port}/0",
                "XDG_RUNTIME_DIR": str(self._short),
                "ALPACLI_RATE_LIMIT": str(LIMIT),
                "ALPACLI_RATE_RESERVE": str(RESERVE),
                "ALPACLI_RATE_WINDOW": str(WINDOW_S),
                "ALPACLI_BREAKER_OPEN": str(_BREAKER_S),
                "ALPACLI_HUB_LINGER": "0.5",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
        )
        exchange_state = {"ALPACLI_STATE_DIR": str(self.root / "exchange")}
        reset = self.user(
            "sim", "reset", "--yes", "--hours", "always", "--rate-limit", "0", env={**exchange_state, "REDIS_URL": None}
        )
        assert reset.code == 0, reset.errors
        env = self.user.environment()
        self.exchange = self._part(
            "exchange",
            [sys.executable, "-m", "tests.chaos.exchange", str(self._port), str(self.root / "taken-in")],
            {**env, **exchange_state},
            self._port,
        )
        _until(self._answers, 60)
        actor = [sys.executable, "-m", "tests.chaos.actors"]
        self.gateway = self._part(
            "gateway", [PROGRAM, "serve", "--port", str(self._gateway_port), "--quiet"], env, self._gateway_port
        )
        self.clients = [
            self._part("reader-1", [*actor, "read", str(self.root / "reader-1.told")], env),
            self._part("reader-2", [*actor, "read", str(self.root / "reader-2.told")], env),
            self._part("trader", [*actor, "trade", str(self.root / "trader.told")], env),
            self._part(
                "caller",
                [*actor, "gateway", str(self.root / "caller.told"), f"http://127.0.0.1:{self._gateway_port}"],
                env,
            ),
            self._part("stream", [PROGRAM, "stream", "AAPL", "MSFT", "--json"], env),
            self._part("updates", [PROGRAM, "stream", "--updates", "--json"], env),
        ]
        self._commands: list[tuple[str, subprocess.Popen[bytes]]] = []
        return self

    def __exit__(self, *_: object) -> None:
        for part in (*self.clients, self.gateway, self.exchange):
            part.signal(signal.SIGCONT)
            part.kill()
        for _name, process in self._commands:
            process.kill()
            process.communicate()
        for pid in self._of_ours():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.redis.kill()
        self._short.unlink(missing_ok=True)

    def _part(self, name: str, command: Sequence[str], env: Mapping[str, str], port: int | None = None) -> Part:
        return Part(name, command, env, self.root, port)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/sim/faults", timeout=1) as answer:
            return bool(answer.read())
        return False

    # -------------------------------------------------------------------------------------------------- a bad day

    def run(self, seconds: float) -> None:
        """Go on for so long, with a fault every half a second or so; in the end everything is well again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._go_on()
            self._command()
            self._fault()
            pause_until = time.monotonic() + self.dice.uniform(0.2, 0.8)
            while time.monotonic() < pause_until:
                self._go_on()
                time.sleep(0.05)
        while self._resume:
            self._go_on()
            time.sleep(0.05)
        self._go_on()
        _until(self._answers, 60)

    def _go_on(self) -> None:
        """Start what has ended, resume what has been paused long enough, and take note of commands that are done."""
        now = time.monotonic()
        for due, resume in [item for item in self._resume if item[0] <= now]:
            self._resume.remove((due, resume))
            resume()
        for part in (self.exchange, self.gateway, *self.clients):
            if part.has_ended() and part.name not in self._struck:
                part.start()
        for name, process in [item for item in self._commands if item[1].poll() is not None]:
            self._commands.remove((name, process))
            self._take(name, process)

    def _take(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        out, err = process.communicate()
        self._keep("commands", out, err)
        action, _, subject = name.partition(" ")
        if process.returncode == 0:
            (self.placed if action in ("buy", "sell") else self.canceled).add(subject)
        elif process.returncode not in (-signal.SIGKILL, 4, 5, 6, 7):
            self.bad_ends.append(f"{name}: exit {process.returncode}: {err[-500:].decode(errors='replace')}")
        if b"Traceback" in err:
            self.bad_ends.append(f"{name}: {err[-500:].decode(errors='replace')}")

    def _keep(self, name: str, out: bytes, err: bytes) -> None:
        """Put what a command said where tracebacks and secrets are looked for."""
        for kind, said in (("out", out), ("err", err)):
            with (self.root / f"{name}.{kind}").open("ab") as file:
                file.write(said)

    def _command(self) -> None:
        """Place or cancel an order through the command line, which may be killed like everybody."""
        if len(self._commands) >= 3:
            return
        self._orders += 1
        known = sorted(self.placed - self.canceled)
        if known and self.dice.random() < 0.3:
            subject = self.dice.choice(known)
            words = ["cancel", subject]
            name = f"cancel {subject}"
        else:
            subject = f"cli-{self._orders}"
            # Far from the market, and one side of each symbol: nothing trades, and nothing is refused.
            side, symbol, price = self.dice.choice((("buy", "F", "1"), ("buy", "F", "1"), ("sell", "PFE", "100")))
            words = [side, symbol, "1", "--limit", price, "--client-order-id", subject]
            name = f"{side} {subject}"
        process = subprocess.Popen(
            [PROGRAM, *words, "--max-wait", "5", "--timeout", "2"],
            env=self.user.environment(),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - as above
        )
        self._commands.append((name, process))

    def _fault(self) -> None:
        kind, strike = self.dice.choice(self._kinds())
        self.faults[kind] += strike()

    def _kinds(self) -> list[tuple[str, Callable[[], bool]]]:
        return [
            ("exchange killed", lambda: self._kill(self.exchange)),
            ("exchange paused", lambda: self._pause(self.exchange)),
            ("gateway killed", lambda: self._kill(self.gateway)),
            ("gateway paused", lambda: self._pause(self.gateway)),
            ("Redis killed", self._kill_redis),
            ("Redis paused", self._pause_redis),
            ("hub killed", lambda: self._hub(signal.SIGKILL)),
            ("hub paused", lambda: self._hub(signal.SIGSTOP)),
            ("client killed", lambda: self._kill(self.dice.choice(self.clients))),
            ("client paused", lambda: self._pause(self.dice.choice(self.clients))),
            ("command killed", self._kill_command),
            ("network", self._network),
        ]

    def _can_strike(self, part: Part) -> bool:
        """Tell whether it is a fault for it now; who is starting is mostly left alone, or a slow machine never starts it."""
        if part.process is None or self._is_struck(part.name):
            return False
        return part.is_up or self.dice.random() < 0.2

    def _kill(self, part: Part) -> bool:
        if not self._can_strike(part):
            return False
        part.kill()

        def again() -> None:
            if part.has_ended():
                part.start()

        self._later(part.name, again, 1.0)
        return True

    def _pause(self, part: Part) -> bool:
        if not self._can_strike(part):
            return False
        part.signal(signal.SIGSTOP)
        self._later(part.name, lambda: part.signal(signal.SIGCONT), 3.0)
        return True

    def _kill_redis(self) -> bool:
        if self._is_struck("Redis"):
            return False
        self.redis.kill()
        self._later("Redis", self.redis.start, 2.0)
        return True

    def _pause_redis(self) -> bool:
        process = self.redis.process
        if self._is_struck("Redis") or process is None:
            return False
        process.send_signal(signal.SIGSTOP)
        self._later("Redis", lambda: process.send_signal(signal.SIGCONT), 2.0)
        return True

    def _hub(self, number: signal.Signals) -> bool:
        pids = [pid for pid in self._of_ours() if b"alpacli.live\0hub\0" in _read(f"/proc/{pid}/cmdline")]
        if not pids or self._is_struck("hub"):
            return False
        pid = self.dice.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if number == signal.SIGSTOP:

            def again() -> None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

            self._later("hub", again, 3.0)
        return True

    def _kill_command(self) -> bool:
        if not self._commands:
            return False
        self.dice.choice(self._commands)[1].kill()
        return True

    def _network(self) -> bool:
        body = json.dumps(self.dice.choice(NETWORK)).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + "/sim/faults", body), timeout=2) as answer:
                return bool(answer.read())
        except OSError:
            return False  # it is down

    def _later(self, name: str, resume: Callable[[], None], most_s: float) -> None:
        self._struck.add(name)

        def well_again() -> None:
            self._struck.discard(name)
            resume()

        self._resume.append((time.monotonic() + self.dice.uniform(0.1, most_s), well_again))

    def _is_struck(self, name: str) -> bool:
        return name in self._struck

    # ------------------------------------------------------------------------------------------------- the proofs

    def proofs(self, *, settle_s: float = 0.0) -> Iterator[tuple[str, str]]:
        """End everything and yield what is proved and what is wrong with it (nothing: it holds).

        ``settle_s`` is how long to wait before the last question: after two minutes no order may be in doubt any more.
        """
        idle = [kind for kind, _ in self._kinds() if not self.faults[kind]]
        enough = sum(self.faults.values()) and not (settle_s and idle)
        yield "faults were injected", "" if enough else f"none of {', '.join(idle)}: this run proves too little"
        for part in self.clients:
            part.stop()
        while self._commands:
            self._go_on_with_commands()
        self.gateway.stop()
        time.sleep(max(settle_s, 2 * _BREAKER_S))
        unresolved = self.user("orders", "--unresolved", "--json", "--max-wait", "30")
        self._keep("unresolved", unresolved.out, unresolved.err)
        yield "unresolved orders can be asked for", "" if unresolved.code in (0, 7) else unresolved.errors
        doubtful = {row["client_order_id"]: row["outcome"] for row in json.loads(unresolved.out or b"[]")}
        yield from self._budget()
        book = self._book()
        yield from self._orders_add_up(book, doubtful, settled=settle_s > 0)
        verdict = self.user("audit", "verify", "--json")
        yield "the audit chain verifies", "" if verdict.code == 0 else verdict.text + verdict.errors
        yield "nobody ended in a way of its own", "; ".join((*self.bad_ends, *self._odd_codes(), *self._tracebacks()))
        self.exchange.stop()
        left = [] if _until(lambda: not self._of_ours(), 20) else self._of_ours()
        yield "no process is left", "; ".join(f"{pid}: {_read(f'/proc/{pid}/cmdline')!r}" for pid in left)
        self.redis.kill()
        yield "no secret is in any file", "; ".join(self._spilled())

    def _go_on_with_commands(self) -> None:
        for name, process in list(self._commands):
            process.wait(60)
            self._commands.remove((name, process))
            self._take(name, process)

    def _book(self) -> dict[str, list[dict[str, Any]]]:
        """Return the exchange's orders by client order ID, asked without alpacli."""
        headers = {"APCA-API-KEY-ID": _KEY, "APCA-API-SECRET-KEY": self._secrets[0]}
        found: dict[str, list[dict[str, Any]]] = {}
        cursor = ""
        while True:
            request = urllib.request.Request(f"{self.url}/v2/orders?status=all&limit=500{cursor}", None, headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                rows = json.loads(answer.read())
            for row in rows:
                found.setdefault(row["client_order_id"], []).append(row)
            if len(rows) < 500:
                return found
            cursor = f"&before_order_id={rows[-1]['id']}"

    def _orders_add_up(
        self, book: Mapping[str, Sequence[Mapping[str, Any]]], doubtful: Mapping[str, str], *, settled: bool
    ) -> Iterator[tuple[str, str]]:
        lines = [line for path in self.user.state.glob("orders/*.jsonl") for line in Journal(str(path)).records()]
        sent = {line["client_order_id"] for line in lines if line.get("phase") == "sent" and line["action"] == "place"}
        outcomes = {
            line["client_order_id"]: line["outcome"]
            for line in lines
            if line.get("outcome") and line.get("action") in ("place", "resolve")
        }
        told = [
            {"who": path.stem, **json.loads(line)}
            for path in self.root.glob("*.told")
            for line in path.read_text().splitlines()
            if line.endswith("}")
        ]
        placed = self.placed | {item["name"] for item in told if item["what"] == "placed"}
        canceled = self.canceled | {item["name"] for item in told if item["what"] == "canceled"}
        self.figures |= {
            "orders sent": len(sent),
            "on the book": len(book),
            "reads": sum(i["what"] == "read" for i in told),
        }
        yield "everybody got something done", ", ".join(self._idle(told, book))
        yield (
            "no order was refused: nothing was wrong with one",
            ", ".join(n for n in sent if outcomes.get(n) == "refused"),
        )
        yield "no order is there twice", ", ".join(name for name, rows in book.items() if len(rows) > 1)
        yield "nothing is on the book that no journal knows", ", ".join(book.keys() - sent)
        yield "nothing is on the book that nobody asked for", ", ".join(n for n in book if not n.startswith(_NAMES))
        yield "every order that was said to be placed is there", ", ".join(placed - book.keys())
        missing = sent - book.keys()
        lost = [name for name in missing if outcomes.get(name) == "placed"]
        yield "no order that the journal knows as placed is missing", ", ".join(lost)
        open_questions = {
            name
            for name in sent
            if outcomes.get(name) not in ("placed", "refused", "rejected", "not placed", "not sent")
        }
        wrong = [
            f"{n}: {outcomes.get(n)}, {doubtful.get(n)}"
            for n in open_questions
            if n in book or (settled or n not in doubtful)
        ]
        yield "every other order is known as not sent", ", ".join(wrong)
        denied = [n for n in sent & book.keys() if outcomes.get(n) not in ("placed", None)]
        yield "no order on the book is said not to be", ", ".join(f"{n}: {outcomes.get(n)}" for n in denied)
        open_still = [
            n for n in canceled if n in book and book[n][0]["status"] not in ("canceled", "pending_cancel", "filled")
        ]
        yield "every order that was said to be canceled is", ", ".join(open_still)

    def _idle(
        self, told: Sequence[Mapping[str, Any]], book: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Iterator[str]:
        """Return who did nothing that a proof could be about: readers, streams, and who places orders."""
        read = {item["who"] for item in told if item["what"] == "read"}
        yield from (who for who in ("reader-1", "reader-2", "caller") if who not in read)
        yield from (who for who in ("stream", "updates") if not _read(str(self.root / f"{who}.out")))
        sides = {rows[0]["side"] for rows in book.values()}
        yield from (f"orders to {side}" for side in ("buy", "sell") if side not in sides)
        yield from (f"orders {start}" for start in _NAMES if not any(name.startswith(start) for name in book))

    def _odd_codes(self) -> Iterator[str]:
        for part in (*self.clients, self.gateway, self.exchange):
            odd = {code: n for code, n in part.codes.items() if code not in (0, -9, -15, 3, 4, 5, 6, 130, 143)}
            if odd:
                said = _read(str(self.root / f"{part.name}.err"))[-600:].decode(errors="replace")
                yield f"{part.name}: exit codes {odd}: {said}"

    def _tracebacks(self) -> Iterator[str]:
        for path in sorted((*self.root.glob("*.err"), *self.root.glob("run/**/*.log"))):
            text = path.read_text(errors="replace")
            if "Traceback" in text:
                at = text.index("Traceback")
                yield f"{path.name}: {text[at : at + 1500]}"

    def _budget(self) -> Iterator[tuple[str, str]]:
        """Count what the exchange took in, at the moment it did, in every window of the budget's length.

        Each request counts: also one whose client had left, and one that a killed exchange never answered. There is no
        slack: the budget promises this count as long as nothing is on its way for longer than ``FLIGHT_S``, and nobody is
        paused for nearly so long. What the conductor asks itself is not in it.
        """
        lines = [line.split(" ", 2) for line in (self.root / "taken-in").read_text().splitlines()]
        taken_in = sorted((int(at), method, path) for at, method, path in lines if not path.startswith("/sim/"))
        times = [at for at, _method, _path in taken_in]
        window = int(WINDOW_S * 1_000_000)
        in_window = [bisect_right(times, at + window) - place for place, at in enumerate(times)]
        fullest = max(in_window, default=0)
        self.figures |= {"requests": len(times), "fullest window": fullest}
        problem = ""
        if not 0 < fullest <= LIMIT:
            first = in_window.index(fullest) if in_window else 0
            each = [
                f"+{(at - times[first]) / 1e6:.3f} {method} {path}"
                for at, method, path in taken_in[first : first + fullest]
            ]
            problem = f"{fullest} of {LIMIT} requests in {WINDOW_S:g} s: {'; '.join(each)}"
        yield "the budget was not exceeded", problem

    def _of_ours(self) -> list[int]:
        """Return processes of this user of ours, by the state directory in their environment."""
        mark = f"ALPACLI_STATE_DIR={self.user.state}\0".encode()
        pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
        return [pid for pid in pids if pid != os.getpid() and mark in _read(f"/proc/{pid}/environ")]

    def _spilled(self) -> Iterator[str]:
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                for secret in self._secrets:
                    if secret.encode() in content:
                        yield str(path.relative_to(self.root))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True
