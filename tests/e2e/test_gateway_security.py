"""Who may, and what a gateway does with clients that mean harm or are broken. Real processes, raw sockets."""

import base64
import hashlib
import hmac
import json
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import MarketOrderRequest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support import valkey
from tests.support.origin import Origin, Reply
from tests.support.serving import KEY_ID, SECRET, Gateway, keys
from tests.support.sim_server import SimServer

from alpacli.gateway.signing import sign

V1 = "/api/v1/broker"
GUARDED = (f"{V1}/account", f"{V1}/positions", f"{V1}/orders", f"{V1}/halt", "/v2/account", "/openapi.json")


def within_a_second(condition: Any) -> bool:
    """Ask again until it holds; the gateway promises a second, a busy machine may take longer to ask."""
    for _ in range(60):
        if condition():
            return True
        time.sleep(0.05)
    return False


def changed(token: str, **claims: Any) -> str:
    """Return the token with other claims under the old signature."""
    head, body, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(body + "=="))
    text = json.dumps({**told, **claims}).encode()
    return ".".join([head, base64.urlsafe_b64encode(text).decode().rstrip("="), signature])


# ------------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_told_without_a_token(gateway: Gateway, path: str) -> None:
    answer = gateway.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "token" in answer.text


@pytest.mark.parametrize("path", [f"{V1}/account", "/v2/account"])
def test_tokens_that_are_none_are_refused(gateway: Gateway, path: str) -> None:
    token = gateway.token("read")
    account = gateway.settings.fingerprint
    claims = {"iss": "alpacli", "aud": account, "sub": "x", "jti": "x", "scope": "read", "exp": time.time() + 60}
    kid = jwt.get_unverified_header(token)["kid"]
    private = rsa.generate_private_key(65537, 2048)
    forged = {
        "expired": gateway.token("read", expires_in_s=-5),
        "tampered claims": changed(token, scope="read trade stream"),
        "tampered signature": token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
        "alg none": jwt.encode(claims, "", "none"),
        "alg none with our key id": jwt.encode(claims, "", "none", headers={"kid": kid}),
        "another secret": jwt.encode(claims, "x" * 32, "HS256", headers={"kid": kid}),
        "another algorithm": jwt.encode(claims, "x" * 64, "HS512", headers={"kid": kid}),
        "a key of its own": jwt.encode(claims, private, "RS256", headers={"kid": kid}),
        "junk": "not.a.token",
        "empty parts": "..",
        "very long": "a" * 9000,
        "not text": "\xff\xfe",
    }
    for what, bad in forged.items():
        answer = gateway.get(path, headers={"Authorization": f"Bearer {bad}".encode("latin-1")})
        assert answer.status_code == 401, what
    assert gateway.get(path, token).status_code == 200


def test_a_scope_reaches_as_far_as_it_says(gateway: Gateway) -> None:
    order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "limit", "limit_price": "1", "time_in_force": "day"}
    reads, trades = gateway.token("read"), gateway.token("trade")
    for path in (f"{V1}/orders", "/v2/orders"):
        assert gateway.send("POST", path, reads, json=order).status_code == 403
        assert gateway.get(path, trades).status_code == 403
        assert gateway.send("POST", path, trades, json=order).status_code == 200
    assert gateway.send("DELETE", f"{V1}/positions/AAPL", reads).status_code == 403
    assert gateway.send("POST", f"{V1}/halt", reads).status_code == 403
    assert gateway.get(f"{V1}/account", gateway.token("stream")).status_code == 403


def test_a_revoked_token_ends_within_a_second_also_where_its_answer_is_remembered(gateway: Gateway) -> None:
    token, token_id = gateway.minted("read", name="leaked")
    assert gateway.get(f"{V1}/account", token).status_code == 200
    dry = gateway.alpacli("serve", "tokens", "--revoke", token_id, "--json", "--dry-run")
    assert json.loads(dry.out) == {"revoked": [token_id], "dry_run": True}
    assert gateway.get(f"{V1}/account", token).status_code == 200
    done = gateway.alpacli("serve", "tokens", "--revoke", token_id, "--json")
    assert json.loads(done.out) == {"revoked": [token_id]}
    assert done.errors == ""
    mistyped = gateway.alpacli("serve", "tokens", "--revoke", token_id, "--revoke", "leekd", "--json")
    assert (mistyped.code, mistyped.out) == (4, b"")
    assert "minted as leekd, and nothing was revoked" in mistyped.errors
    assert within_a_second(lambda: gateway.get(f"{V1}/account", token).status_code == 401)
    assert "revoked" in gateway.get("/v2/account", token).text
    listed = json.loads(gateway.alpacli("serve", "tokens", "--json").out)
    assert [line["state"] for line in listed if line["id"] == token_id] == ["revoked"]


def test_the_command_prints_the_token_alone_and_a_client_uses_it(gateway: Gateway) -> None:
    minted = gateway.alpacli("serve", "token", "--scope", "read,trade", "--expires", "30m", "--name", "bot 1")
    assert minted.code == 0, minted.errors
    assert minted.out.count(b"\n") == 1
    token = minted.text.strip()
    assert gateway.get("/v2/account", token).status_code == 200
    assert token not in minted.errors
    assert "bot 1" in gateway.alpacli("serve", "tokens").text


@pytest.mark.parametrize("args", [("--scope", "root"), ("--expires", "0h")])
def test_the_command_refuses_what_makes_no_sense(gateway: Gateway, args: tuple[str, str]) -> None:
    refused = gateway.alpacli("serve", "token", *args)
    assert (refused.code, refused.out) == (2, b"")


def test_key_pairs_open_alpacas_paths_the_accounts_own_and_minted_ones(gateway: Gateway) -> None:
    key_id, secret = gateway.alpacli("serve", "token", "--pair", "--scope", "read", "--quiet").text.split()
    assert within_a_second(lambda: gateway.get("/v2/account", headers=keys(key_id, secret)).status_code == 200)
    assert gateway.send("DELETE", "/v2/orders", headers=keys(key_id, secret)).status_code == 403
    assert gateway.get("/v2/account", headers=keys()).status_code == 200
    for wrong in (
        keys(key_id, secret + "x"),
        keys(key_id, SECRET),
        keys(KEY_ID, secret),
        keys("", ""),
        keys("PKX", "y"),
    ):
        assert gateway.get("/v2/account", headers=wrong).status_code == 401


def test_a_token_in_a_url_is_refused_even_when_it_is_good(gateway: Gateway) -> None:
    token = gateway.token("read")
    for query in (f"token={token}", f"access_token={token}", f"note={token}", f"APCA-API-KEY-ID={KEY_ID}"):
        answer = gateway.get(f"/v2/account?{query}", token)
        assert answer.status_code == 400, query
        assert token not in answer.text


def test_no_secret_is_on_disk_in_a_log_or_in_an_answer(gateway: Gateway) -> None:
    token, _ = gateway.minted("read", name="quiet")
    minted = gateway.alpacli("serve", "token", "--pair", "--quiet").text.split()
    for path in (f"{V1}/account", f"{V1}/limits", "/readyz", "/v2/account", "/openapi.json"):
        body = gateway.get(path, token).text
        assert SECRET not in body
        assert KEY_ID not in body
    folder = gateway.alpacli.state / "gateway"
    kept = b"".join(file.read_bytes() for file in folder.iterdir())
    assert SECRET.encode() not in kept
    assert token.encode() not in kept
    assert minted[1].encode() not in kept
    assert {oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {"0o600"}
    assert SECRET not in gateway.errors


def test_a_secret_that_others_can_read_is_not_used(tmp_path: Path, exchange: SimServer) -> None:
    gateway = Gateway(tmp_path, exchange.url)
    gateway.token()
    (secret,) = (gateway.alpacli.state / "gateway").glob("*.secret")
    os.chmod(secret, 0o644)
    ended = gateway.alpacli("serve", "--port", "0")
    assert ended.code == 3
    assert "can be read by others" in ended.errors


# --------------------------------------------------------------------------------------------- another issuer


def test_tokens_of_ones_own_issuer_are_taken_and_nobody_elses(tmp_path: Path, exchange: SimServer) -> None:
    private, stranger = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
    published = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{**published, "kid": "k1", "alg": "RS256"}]}))
    claims = {"iss": "https://id.example.com", "aud": "desk", "sub": "ann", "jti": "t1", "scope": "read"}
    claims["exp"] = time.time() + 600  # type: ignore[assignment] # claims of any type

    def signed(key: Any = private, algorithm: str = "RS256", **other: Any) -> str:
        return jwt.encode({**claims, **other}, key, algorithm, headers={"kid": "k1"})

    public_pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    args = ("--issuer", "https://id.example.com", "--audience", "desk", "--jwks", str(tmp_path / "jwks.json"))
    with Gateway(tmp_path, exchange.url, *args) as gateway:
        assert gateway.get("/v2/account", signed()).status_code == 200
        assert gateway.send("DELETE", "/v2/orders", signed()).status_code == 403
        first, body, _ = signed().split(".")
        hs = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').decode().rstrip("=")
        # The public key as the secret of an HMAC: what a reader falls for that lets the token choose.
        confused = base64.urlsafe_b64encode(hmac.digest(public_pem, f"{hs}.{body}".encode(), "sha256"))
        bad = [
            signed(stranger),
            signed(aud="other"),
            signed(iss="https://evil.example.com"),
            signed(exp=time.time() - 120),
            f"{hs}.{body}.{confused.decode().rstrip('=')}",
            f"{first}.{body}.",
        ]
        assert [gateway.get("/v2/account", token).status_code for token in bad] == [401] * len(bad)
        gateway.alpacli("serve", "tokens", "--revoke", "t1", "--foreign")
        assert within_a_second(lambda: gateway.get("/v2/account", signed()).status_code == 401)


# ----------------------------------------------------------------------------------------------- signed trades


def test_a_client_whose_trades_are_signed_cannot_trade_without_and_nothing_is_good_twice(gateway: Gateway) -> None:
    token, key = gateway.alpacli("serve", "token", "--scope", "read,trade", "--sign", "--quiet").text.split()
    order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "limit", "limit_price": "1", "time_in_force": "day"}
    body = json.dumps(order).encode()
    target = "/v2/orders"

    def post(at: int, signature: str, sent: bytes = body, path: str = target) -> int:
        headers = {"X-Alpacli-Time": str(at), "X-Alpacli-Signature": signature}
        return gateway.send("POST", path, token, data=sent, headers=headers).status_code

    now = int(time.time())
    good = sign(key, "POST", target, body, now)
    assert gateway.get(target, token).status_code == 200  # reading needs no signature
    assert gateway.send("POST", target, token, data=body).status_code == 401
    assert post(now, good, body.replace(b'"1"', b'"9"')) == 401
    assert post(now, good, path=f"{V1}/orders") == 401
    assert post(now + 1, good) == 401
    assert post(now - 120, sign(key, "POST", target, body, now - 120)) == 401
    assert post(now, "é") == 401
    assert post(now, good) == 200
    assert post(now, good) == 401


def test_where_all_trades_are_signed_the_accounts_own_pair_is_told_what_to_do_and_the_sdk_can_sign(
    tmp_path: Path, exchange: SimServer
) -> None:
    scope: dict[str, Any] = {"requests": requests, "time": time, "hmac": hmac, "sha256": hashlib.sha256}
    exec(_python_in_docs("class Signed"), scope)  # as docs/gateway.md has it, up to the client
    with Gateway(tmp_path, exchange.url, "--require-signing") as gateway:
        own = TradingClient(KEY_ID, SECRET, url_override=gateway.url)
        assert own.get_account()
        with pytest.raises(APIError, match="alpacli serve token --scope read,trade --sign"):
            own.cancel_orders()
        minted = gateway.alpacli("serve", "token", "--scope", "read,trade", "--sign", "--quiet")
        token, key = minted.text.split()
        client = TradingClient(oauth_token=token, url_override=gateway.url)
        with pytest.raises(APIError, match="made with its signing key"):
            client.cancel_orders()
        client._session.auth = scope["Signed"](key)
        order = MarketOrderRequest(symbol="BTC/USD", qty=0.01, side=OrderSide.BUY, time_in_force=TimeInForce.GTC)
        placed = client.submit_order(order)
        assert isinstance(placed, Order)
        assert client.get_order_by_id(placed.id)


def _python_in_docs(beginning: str) -> str:
    text = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
    (found,) = (code for code in text.split("```python\n") if code.startswith(beginning))
    return found.partition("client = ")[0]


# ------------------------------------------------------------------------------------------- broken and hostile


def head(gateway: Gateway, line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", f"Authorization: Bearer {gateway.token()}", *headers, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_a_megabyte_of_headers_ends_the_connection(gateway: Gateway) -> None:
    one = gateway.raw(head(gateway, "GET /v2/clock HTTP/1.1", "X-Long: " + "a" * 1_000_000))
    many = gateway.raw(head(gateway, "GET /v2/clock HTTP/1.1", *[f"X-{n}: {'b' * 90}" for n in range(10_000)]))
    endless = gateway.raw(b"GET /v2/clock HTTP/1.1\r\nX-Endless: " + b"a" * 300_000)
    assert {status(one), status(many), status(endless)} <= {0, 400, 431}
    assert gateway.get("/healthz").status_code == 200


def test_a_body_that_is_too_large_is_413_announced_or_not(gateway: Gateway) -> None:
    token = gateway.token()
    assert gateway.send("POST", "/v2/orders", token, data=b"[" * 300_000).status_code == 413
    chunked = gateway.send("POST", "/v2/orders", token, data=iter([b"x" * 65536] * 8))
    assert chunked.status_code == 413


def test_a_url_that_is_too_long_is_refused(gateway: Gateway) -> None:
    assert gateway.get("/v2/stocks/bars?symbols=" + "A" * 9000, gateway.token()).status_code in (400, 414)


@pytest.mark.parametrize(
    "junk",
    [
        os.urandom(2000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /v2/clock HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/clock HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_junk_is_no_reason_to_fail(gateway: Gateway, junk: bytes) -> None:
    assert status(gateway.raw(junk, within_s=3)) in (0, 400, 401, 404, 422)
    assert gateway.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"qty": NaN}', b"[" * 50_000, b'{"qty": 1e999999}', b"\x00"],
)
def test_a_body_that_is_no_order_is_422(gateway: Gateway, body: bytes) -> None:
    token = gateway.token()
    for path in (f"{V1}/orders", "/v2/orders"):
        assert gateway.send("POST", path, token, data=body).status_code == 422, path


TRICKS = (
    "/v2/../v2/wallets",
    "/v2/orders/../wallets",
    "/v2/orders/..%2Fwallets",
    "/v2/orders/%2e%2e/wallets",
    "/v2/orders/%252e%252e%252fwallets",
    "/v2/orders/..%5cwallets",
    "/v2//account",
    "/v2/account/",
    "/v2/account%00",
    "/v2/account;x=1",
    "/v2/account%20",
    "/v2/account%0d%0aX-Evil: 1",
    "/V2/account",
    "/v2/wallets",
    "/v2/wallets/transfers",
    "/v1/locates",
    "/v2/%61ccount/../wallets",
    "//evil.example.com/v2/account",
    "/v2/positions/@evil.example.com",
    "/v2/assets/a%2Fb%2F..%2F..%2Fwallets",
    "/v1beta1/../v2/account",
    "/v2/stocks/%2e%2e/account",
    "/v2/orders/a?x=1%23/../wallets",
)


def test_only_listed_paths_reach_upstream_however_they_are_written(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", *[Reply(body={"id": "x"})] * 5)
        with Gateway(tmp_path, origin.url) as gateway:
            for trick in TRICKS:
                answer = gateway.raw(head(gateway, f"GET {trick} HTTP/1.1", "Connection: close"), within_s=3)
                assert status(answer) in (0, 400, 404), trick
            assert {request.path for request in origin.requests} <= {"/v2/account", "/v2/orders/a"}


def test_pages_of_other_sites_get_nothing_and_no_permission(gateway: Gateway) -> None:
    token = gateway.token()
    foreign = gateway.get("/v2/account", token, headers={"Origin": "https://evil.example.com"})
    preflight = gateway.send(
        "OPTIONS", "/v2/orders", headers={"Origin": "https://evil.example.com", "Access-Control-Request-Method": "POST"}
    )
    own = gateway.get("/v2/account", token, headers={"Origin": gateway.url})
    assert (foreign.status_code, own.status_code) == (403, 200)
    assert preflight.status_code in (403, 405)
    for answer in (foreign, preflight, own):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_slow_clients_are_cut_off_and_hold_up_nobody(tmp_path: Path, exchange: SimServer) -> None:
    """Shortened: the process is told nothing about its patience, so the protocol is driven here."""
    import asyncio

    from uvicorn import Config, Server

    from alpacli.gateway.parts import Limits
    from alpacli.gateway.protocol import patient

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def run() -> bytes:
        server = Server(
            Config(app, port=0, http=patient(Limits(request_s=0.5)), lifespan="off", log_level="critical", ws="none")
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 # uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        drip = asyncio.create_task(_drip(writer))
        other_reader, other = await asyncio.open_connection("127.0.0.1", port)
        other.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await other_reader.readline()).startswith(b"HTTP/1.1 204")
        heard = await asyncio.wait_for(reader.readline(), 10)  # drops on a closed door reset the rest
        drip.cancel()
        other.close()
        writer.close()
        server.should_exit = True
        await serving
        return heard

    assert status(asyncio.run(run())) == 408


async def _drip(writer: Any) -> None:
    import asyncio

    writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------------------- limits and places


def test_one_clients_allowance_is_its_own(tmp_path: Path, exchange: SimServer) -> None:
    with Gateway(tmp_path, exchange.url, "--token-rate", "5") as gateway:
        greedy, modest = gateway.token("read", name="greedy"), gateway.token("read", name="modest")
        statuses = [gateway.get(f"{V1}/account", greedy).status_code for _ in range(8)]
        assert statuses[:5] == [200] * 5
        assert 429 in statuses[5:]
        refused = gateway.get("/v2/account", greedy)
        if refused.status_code == 429:
            assert 1 <= int(refused.headers["Retry-After"]) <= 12
        assert gateway.get(f"{V1}/account", modest).status_code == 200


def test_an_allowance_is_one_over_all_gateways_and_goes_on_without_redis(tmp_path: Path, exchange: SimServer) -> None:
    (tmp_path / "redis").mkdir()
    with valkey.server(tmp_path / "redis") as redis:
        env = {"REDIS_URL": redis.url}
        homes = [tmp_path / "a", tmp_path / "b"]
        for home in homes:
            home.mkdir()
        with (
            Gateway(homes[0], exchange.url, "--token-rate", "8", env=env) as one,
            Gateway(homes[1], exchange.url, "--token-rate", "8", env=env) as two,
        ):
            began = time.monotonic()
            statuses = [gate.get(f"{V1}/account", headers=keys()).status_code for gate in (one, two) * 8]
            came_back = (time.monotonic() - began) * 8 / 60
            assert 8 <= statuses.count(200) <= 8 + came_back
            assert set(statuses) == {200, 429}
            redis.kill()
            alone = [two.get(f"{V1}/account", headers=keys()).status_code for _ in range(20)]
            assert alone[0] == 200
            assert 429 in alone
        assert two.errors.count("counts --token-rate by itself") == 1


def test_more_connections_than_allowed_are_told_to_come_back(tmp_path: Path, exchange: SimServer) -> None:
    with Gateway(tmp_path, exchange.url, "--max-connections", "4") as gateway:
        idle = [gateway.dial() for _ in range(6)]
        assert within_a_second(lambda: gateway.get("/healthz").status_code == 503)
        for line in idle:
            line.close()
        assert within_a_second(lambda: gateway.get("/healthz").status_code == 200)


def test_only_allowed_networks_may_connect(tmp_path: Path, exchange: SimServer) -> None:
    with Gateway(tmp_path, exchange.url, "--allow", "10.0.0.0/8", "--allow", "192.168.1.7") as gateway:
        assert gateway.get("/healthz").status_code == 403


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--host", "0.0.0.0"), 3),
        (("--tls-cert", "no.pem", "--tls-key", "no.pem"), 3),
        (("--allow", "10.0.0.1/8"), 2),
        (("--issuer", "x"), 2),
    ],
)
def test_a_place_where_tokens_are_not_safe_is_refused(gateway: Gateway, args: tuple[str, ...], code: int) -> None:
    ended = gateway.alpacli("serve", "--port", "0", *args)
    assert (ended.code, ended.out) == (code, b""), ended.errors
    assert "hint:" in ended.errors


def test_another_address_is_served_over_tls(tmp_path: Path, exchange: SimServer) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    with Gateway(
        tmp_path, exchange.url, "--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key)
    ) as gateway:
        url = gateway.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"Authorization": f"Bearer {gateway.token()}"}
        answer = requests.get(f"{url}/v2/account", headers=headers, verify=str(cert), timeout=20)
        assert answer.status_code == 200
        assert "Strict-Transport-Security" in answer.headers
        with pytest.raises((requests.ConnectionError, ssl.SSLError)):
            requests.get(url.replace("https", "http") + "/v2/account", headers=headers, timeout=20)
        with requests.Session() as idle:
            assert idle.get(f"{url}/healthz", verify=str(cert), timeout=20).status_code == 200
            gateway.process.send_signal(signal.SIGTERM)
            assert gateway.process.wait(8) == 0  # not held up by a client that keeps its connection and says nothing


def test_gateways_that_share_a_redis_share_tokens_and_revocations(tmp_path: Path, exchange: SimServer) -> None:
    with valkey.server(tmp_path) as redis:
        env = {"REDIS_URL": redis.url}
        with (
            Gateway(tmp_path / "one", exchange.url, env=env) as one,
            Gateway(tmp_path / "two", exchange.url, env=env) as two,
        ):
            token = one.token("read")
            assert within_a_second(lambda: two.get("/v2/account", token).status_code == 200)
            pair = one.alpacli("serve", "token", "--pair", "--quiet", "--name", "shared").text.split()
            assert within_a_second(lambda: two.get("/v2/account", headers=keys(*pair)).status_code == 200)
            for name in ("bot", "shared"):
                two.alpacli("serve", "tokens", "--revoke", name)
            assert within_a_second(lambda: one.get("/v2/account", token).status_code == 401)
            assert within_a_second(lambda: one.get("/v2/account", headers=keys(*pair)).status_code == 401)
            with redis.client() as look:
                kept = b"".join(value for key in look.keys("*~signers") for value in look.hgetall(key).values())
            (secret,) = (one.alpacli.state / "gateway").glob("*.secret")
            assert kept
            assert secret.read_bytes() not in kept
            assert base64.b64encode(secret.read_bytes()) not in kept
