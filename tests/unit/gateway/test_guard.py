"""What a request meets before any route: limits, and answers that are remembered."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli.gateway.answers import answer
from alpacli.gateway.guard import Guard, Network
from alpacli.gateway.keeping import open_keys
from alpacli.gateway.opening import open_gateway
from alpacli.gateway.parts import Limits, Parts
from alpacli.gateway.remembered import Remembered
from alpacli.gateway.tokens import Grant, mint
from alpacli.settings import Flags, load

EYJ = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    env = {"ALPACA_API_KEY": "PKX", "ALPACA_SECRET_KEY": "s", "ALPACLI_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    made = open_gateway(load(Flags(), env=env), Limits(body_bytes=100, request_s=0.05), warn=print)
    made.access.refresh()
    return made


async def _reads_all(scope: Any, receive: Any, send: Any) -> None:
    """Stand for every route: read the body, answer with its length."""
    size, more = 0, True
    while more:
        event = await receive()
        size, more = size + len(event.get("body", b"")), event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Access-Control-Allow-Origin", b"*")]})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Asked:
    """One request to a guard; ``status``, ``headers`` and ``body`` are of the answer."""

    def __init__(
        self,
        parts: Parts,
        path: str = "/api/v1/broker/orders",
        *,
        query: bytes = b"",
        headers: dict[str, str] | None = None,
        body: tuple[bytes, ...] = (b"",),
        stalls: bool = False,
        allowed: tuple[Network, ...] = (),
        client: str = "127.0.0.1",
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET" if body == (b"",) else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "client": (client, 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self._sent: list[dict[str, Any]] = []
        self._pieces = list(body)
        self._stalls = stalls
        asyncio.run(Guard(_reads_all, parts, allowed)(self.scope, self._receive, self._send))
        self.status = self._sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in self._sent[0]["headers"]}
        self.body = b"".join(event.get("body", b"") for event in self._sent[1:])

    async def _receive(self) -> dict[str, Any]:
        if self._stalls and len(self._pieces) == 1:
            await asyncio.sleep(60)
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def _send(self, event: Any) -> None:
        self._sent.append(event)


def test_every_answer_has_the_headers_that_keep_browsers_safe_and_none_that_lets_others_in(parts: Parts) -> None:
    asked = Asked(parts)
    assert asked.status == 200
    assert asked.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in asked.headers["content-security-policy"]
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_a_body_may_come_in_pieces_as_long_as_it_stays_small(parts: Parts) -> None:
    assert Asked(parts, body=(b"x" * 50, b"y" * 50)).body == b"100"
    assert Asked(parts, body=(b"x" * 50, b"y" * 51)).status == 413
    assert Asked(parts, headers={"Content-Length": "101"}, body=(b"x",)).status == 413


def test_a_body_that_does_not_come_is_not_waited_for(parts: Parts) -> None:
    assert Asked(parts, body=(b"x", b"y"), stalls=True).status == 408


@pytest.mark.parametrize("query", [b"token=x", b"a=1&ACCESS_TOKEN=x", b"api_key=x", b"note=" + EYJ.encode()])
def test_a_secret_in_a_url_is_refused_and_does_not_reach_the_log(parts: Parts, query: bytes) -> None:
    asked = Asked(parts, query=query)
    assert asked.status == 400
    assert asked.scope["query_string"] == b"***"


def test_a_token_in_a_path_is_refused_and_does_not_reach_the_log(parts: Parts) -> None:
    asked = Asked(parts, f"/v2/{EYJ}")
    assert asked.status == 400
    assert "eyJ" not in asked.scope["path"]


def test_a_page_token_is_no_secret(parts: Parts) -> None:
    assert Asked(parts, "/v2/account/activities", query=b"page_token=20260105::abc").status == 200


@pytest.mark.parametrize(
    ("client", "status"),
    [("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("11.0.0.1", 403), ("::1", 403), ("testclient", 403)],
)
def test_only_allowed_networks_get_further(parts: Parts, client: str, status: int) -> None:
    assert Asked(parts, allowed=(ip_network("10.0.0.0/8"),), client=client).status == status


def test_a_remembered_answer_needs_a_token_that_may_read(parts: Parts) -> None:
    settings = parts.settings
    clock = ManualClock()
    remembered = Remembered(clock)
    parts = parts._replace(remembered=remembered, clock=clock)
    path = "/api/v1/broker/account"

    async def remember() -> None:
        async def fetch() -> Any:
            return answer(b"{}", clock.monotonic() + 60)

        await remembered.answer((path, b""), fetch)

    asyncio.run(remember())

    def bearer(*scopes: str) -> dict[str, str]:
        grant = Grant("x", "-".join(scopes), frozenset(scopes))
        return {"Authorization": f"Bearer {mint(open_keys(settings), settings.fingerprint, grant, 0)}"}

    assert Asked(parts, path).status == 401
    assert Asked(parts, path, headers=bearer("trade")).status == 403
    known = Asked(parts, path, headers=bearer("read"))
    assert (known.status, known.body) == (200, b"{}")
    again = Asked(parts, path, headers={**bearer("read"), "If-None-Match": known.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert Asked(parts, path, headers={**bearer("read"), "Cache-Control": "no-cache"}).body == b"0"  # asked for anew
