"""Who may, decided without a server: grants, revocations, allowances, and where credentials may be written."""

import asyncio
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.errors import AccessDenied, ConfigError, StoreUnavailable
from alpacli.gateway.access import (
    Access,
    Credentials,
    from_headers,
    from_message,
    from_subprotocols,
)
from alpacli.gateway.tokens import Grant, SigningKeys, mint, mint_pair, signing_key
from alpacli.settings import KeyPair, Secret
from alpacli.store.tokens import Minted, TokenBook

ACCOUNT = "abc123"
PAIR = KeyPair("PKMINE", Secret("mine"), "test")


class Redis:
    """Fields that machines share, and that can be away."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, bytes]] = {}
        self.away = False

    def fields(self, key: str) -> dict[str, bytes]:
        if self.away:
            raise StoreUnavailable("away")
        return dict(self.kept.get(key, {}))

    def set_field(self, key: str, name: str, value: bytes | None) -> None:
        if self.away:
            raise StoreUnavailable("away")
        fields = self.kept.setdefault(key, {})
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value


class Machine:
    """One machine with its own state directory, which may share a Redis with others."""

    def __init__(self, folder: Path, clock: ManualClock, redis: Redis | None = None) -> None:
        self.warnings: list[str] = []
        self.clock = clock
        self.book = TokenBook(str(folder / "tokens.json"), "tokens", redis, self.warnings.append)
        self.keys = SigningKeys(str(folder / "secret"), PAIR.secret, "signers", redis)
        self.access = Access(PAIR, ACCOUNT, self.keys, self.book, clock, self.warnings.append)
        self.access.refresh()

    def token(self, *scopes: str, expires: float | None = None, token_id: str = "t1") -> Credentials:
        grant = Grant("bot", token_id, frozenset(scopes or ("read",)), expires)
        return Credentials(token=mint(self.keys, ACCOUNT, grant, self.clock.time()))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def status_of(access: Access, credentials: Credentials, scope: str = "read") -> int:
    try:
        access.check(credentials, scope)
    except AccessDenied as denied:
        return denied.status or 0
    return 200


def test_a_token_grants_its_scopes_and_no_more(tmp_path: Path, clock: ManualClock) -> None:
    machine = Machine(tmp_path, clock)
    credentials = machine.token("read", "stream")
    assert machine.access.check(credentials, "stream").name == "bot"
    assert [status_of(machine.access, credentials, scope) for scope in ("read", "stream", "trade")] == [200, 200, 403]


def test_a_token_of_another_account_is_refused_also_under_the_same_secret(tmp_path: Path, clock: ManualClock) -> None:
    machine = Machine(tmp_path, clock)
    other = mint(machine.keys, "another", Grant("bot", "t1", frozenset({"read"})), clock.time())
    assert status_of(machine.access, Credentials(token=other)) == 401


def test_the_accounts_own_pair_may_everything_and_half_of_it_nothing(tmp_path: Path, clock: ManualClock) -> None:
    access = Machine(tmp_path, clock).access
    assert [status_of(access, Credentials("", "PKMINE", "mine"), scope) for scope in ("read", "stream", "trade")] == [
        200
    ] * 3
    for key_id, secret in (("PKMINE", "other"), ("PKMINE", ""), ("", "mine"), ("mine", "PKMINE"), ("\ud800", "mine")):
        assert status_of(access, Credentials("", key_id, secret)) == 401


def test_a_pair_that_was_minted_a_moment_ago_is_let_in_and_a_guessed_one_is_not(
    tmp_path: Path, clock: ManualClock
) -> None:
    machine = Machine(tmp_path, clock)
    key_id, secret, digest = mint_pair()
    machine.book.add(Minted("p1", "bot", ("read",), clock.time(), key_id=key_id, secret_sha256=digest))
    clock.advance(0.001)

    async def both() -> tuple[str, int | None]:
        grant = await machine.access.admit(Credentials("", key_id, secret), "read")
        with pytest.raises(AccessDenied) as denied:
            await machine.access.admit(Credentials("", "AKGUESSED", secret), "read")
        return grant.name, denied.value.status

    assert asyncio.run(both()) == ("bot", 401)


def test_a_token_that_was_understood_once_still_expires(tmp_path: Path, clock: ManualClock) -> None:
    machine = Machine(tmp_path, clock)
    credentials = machine.token(expires=clock.time() + 3600)
    grant = machine.access.check(credentials, "read")
    assert machine.access.holds(grant)
    clock.advance(3601)
    assert status_of(machine.access, credentials) == 401
    assert not machine.access.holds(grant)


def test_a_revocation_bites_at_the_next_reading_of_the_book(tmp_path: Path, clock: ManualClock) -> None:
    machine, other = Machine(tmp_path, clock), Machine(tmp_path, clock)
    credentials = machine.token()
    grant = machine.access.check(credentials, "read")
    other.book.revoke("t1", clock.time())
    machine.access.refresh()
    assert status_of(machine.access, credentials) == 401
    assert not machine.access.holds(grant)


def test_a_pair_is_valid_until_it_expires_or_is_revoked_and_only_its_digest_is_kept(
    tmp_path: Path, clock: ManualClock
) -> None:
    machine = Machine(tmp_path, clock)
    key_id, secret, digest = mint_pair()
    entry = Minted("p1", "sdk", ("read",), clock.time(), clock.time() + 60, key_id=key_id, secret_sha256=digest)
    machine.book.add(entry)
    machine.access.refresh()
    pair = Credentials("", key_id, secret)
    assert machine.access.check(pair, "read").name == "sdk"
    assert secret not in (tmp_path / "tokens.json").read_text()
    clock.advance(61)
    assert status_of(machine.access, pair) == 401
    machine.book.add(entry._replace(expires=None))
    machine.access.refresh()
    assert status_of(machine.access, pair) == 200
    machine.book.revoke("p1", clock.time())
    machine.access.refresh()
    assert status_of(machine.access, pair) == 401


def test_machines_that_share_redis_read_each_others_tokens_and_revocations(tmp_path: Path, clock: ManualClock) -> None:
    redis = Redis()
    one, two = Machine(tmp_path / "1", clock, redis), Machine(tmp_path / "2", clock, redis)
    one.access.refresh()
    credentials = two.token()
    assert status_of(one.access, credentials) == 200
    one.book.revoke("t1", clock.time())
    two.access.refresh()
    assert status_of(two.access, credentials) == 401


def test_a_machine_with_other_keys_makes_no_token_that_is_taken_here(tmp_path: Path, clock: ManualClock) -> None:
    redis = Redis()
    here = Machine(tmp_path / "1", clock, redis)
    stranger = SigningKeys(str(tmp_path / "2" / "secret"), Secret("not the account's"), "signers", redis)
    stranger.refresh()
    here.access.refresh()
    forged = mint(stranger, ACCOUNT, Grant("x", "x", frozenset({"read"})), clock.time())
    assert status_of(here.access, Credentials(token=forged)) == 401


def test_what_was_revoked_while_redis_was_away_is_told_when_it_is_back(tmp_path: Path, clock: ManualClock) -> None:
    redis = Redis()
    one, two = Machine(tmp_path / "1", clock, redis), Machine(tmp_path / "2", clock, redis)
    credentials = one.token()
    two.access.refresh()
    redis.away = True
    one.book.revoke("t1", clock.time())
    one.access.refresh()
    two.access.refresh()
    assert [status_of(one.access, credentials), status_of(two.access, credentials)] == [401, 200]
    assert any("Redis" in warning for warning in one.warnings)
    redis.away = False
    one.access.refresh()
    two.access.refresh()
    assert status_of(two.access, credentials) == 401


def test_a_book_that_cannot_be_read_is_said_and_what_was_revoked_stays_revoked(
    tmp_path: Path, clock: ManualClock
) -> None:
    machine = Machine(tmp_path, clock)
    credentials = machine.token()
    machine.book.revoke("t1", clock.time())
    machine.access.refresh()
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        machine.access.refresh()
    assert status_of(machine.access, credentials) == 401


def test_an_entry_that_cannot_be_read_lets_nobody_in(tmp_path: Path, clock: ManualClock) -> None:
    machine = Machine(tmp_path, clock)
    (tmp_path / "tokens.json").write_text('{"t1": {"scopes": 7}}')
    machine.access.refresh()
    assert status_of(machine.access, machine.token()) == 401


def test_the_book_is_read_again_beside_the_requests(tmp_path: Path, clock: ManualClock) -> None:
    machine = Machine(tmp_path, clock)
    credentials = machine.token()

    async def use() -> bool:
        async with machine.access.beside():
            assert status_of(machine.access, credentials) == 200
            machine.book.revoke("t1", clock.time())
            for _ in range(100):
                if status_of(machine.access, credentials) == 401:
                    return True
                await asyncio.sleep(0.05)
        return False

    assert asyncio.run(use())


def test_signing_keys_differ_by_token_and_are_no_tokens_secret(tmp_path: Path, clock: ManualClock) -> None:
    keys = Machine(tmp_path, clock).keys
    assert signing_key(keys, "a") != signing_key(keys, "b")
    assert keys.mine()[1].hex() not in signing_key(keys, "a")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"action": "auth", "token": "t"}, ("t", "", "")),
        ({"action": "auth", "key": "k", "secret": "s"}, ("", "k", "s")),
        ({"action": "auth", "key": "oauth", "secret": "t"}, ("t", "", "")),
        ({"action": "authenticate", "data": {"key_id": "k", "secret_key": "s"}}, ("", "k", "s")),
        ({"action": "authenticate", "data": {"oauth_token": "t"}}, ("t", "", "")),
        ({"action": "auth", "key": 1, "secret": ["s"]}, ("", "", "")),
        (["auth"], ("", "", "")),
        (None, ("", "", "")),
    ],
)
def test_credentials_in_a_first_message(message: object, expected: tuple[str, str, str]) -> None:
    found = from_message(message)
    assert (found.token, found.key_id, found.secret) == expected


def test_credentials_in_headers_and_subprotocols_and_never_in_a_text_of_their_own() -> None:
    assert from_headers({"authorization": "bearer  abc "}).token == "abc"
    assert not from_headers({"authorization": "Basic abc"})
    assert from_subprotocols(["alpacli", "bearer.abc"]).token == "abc"
    assert not from_subprotocols(["bearer.a", "bearer.b"])
    assert "abc" not in repr(Credentials("abc", "key", "abc"))
