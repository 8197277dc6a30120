"""Watchlists: named, ordered lists of symbols that belong to an account."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple

from alpacli.sim.answers import Json, bad_parameter, canonical_identifier, identifier, not_found, timestamp
from alpacli.sim.desk import Desk
from alpacli.sim.listing import LISTINGS, asset_answer, find

_LONGEST_NAME: Final = 64


class Key(NamedTuple):
    """How a request names a watchlist: by id or, when that is empty, by its name."""

    id: str = ""
    name: str = ""


def list_all(desk: Desk) -> list[Json]:
    """Return all watchlists in order of creation, without their assets, as Alpaca does."""
    rows = desk.db.execute("SELECT * FROM watchlists WHERE account = ? ORDER BY seq", (desk.account.number,))
    return [_summary(desk, row) for row in rows]


def show(desk: Desk, key: Key) -> dict[str, Json]:
    return _answer(desk, _row(desk, key))


def create(desk: Desk, body: Mapping[str, object]) -> dict[str, Json]:
    name = _name(desk, body.get("name"))
    symbols = _symbols(desk, body.get("symbols"))
    seq = desk.db.execute(
        "INSERT INTO watchlists (account, id, name, created_ns, updated_ns, symbols) VALUES (?, '', ?, ?, ?, ?)",
        (desk.account.number, name, desk.now_ns, desk.now_ns, json.dumps(symbols)),
    ).lastrowid
    watchlist_id = identifier("watchlist", desk.account.id, seq)
    desk.db.execute("UPDATE watchlists SET id = ? WHERE seq = ?", (watchlist_id, seq))
    return show(desk, Key(watchlist_id))


def update(desk: Desk, key: Key, body: Mapping[str, object]) -> dict[str, Json]:
    """Replace the name, the symbols, or both; what the body leaves out stays."""
    row = _row(desk, key)
    name, symbols = row["name"], json.loads(row["symbols"])
    if body.get("name") is not None and body["name"] != name:
        name = _name(desk, body["name"])
    if body.get("symbols") is not None:
        symbols = _symbols(desk, body["symbols"])
    return _store(desk, row, name, symbols)


def add(desk: Desk, key: Key, symbol: str) -> dict[str, Json]:
    row = _row(desk, key)
    symbols = json.loads(row["symbols"])
    for wanted in _symbols(desk, [symbol]):
        if wanted in symbols:
            raise bad_parameter(f"symbol {wanted} is already in the watchlist")
        symbols.append(wanted)
    return _store(desk, row, row["name"], symbols)


def remove(desk: Desk, key: Key, symbol: str) -> dict[str, Json]:
    row = _row(desk, key)
    symbols = json.loads(row["symbols"])
    listing = find(symbol, desk.market.listings)
    if listing is None or listing.symbol not in symbols:
        raise not_found(f"symbol not found: {symbol}")
    return _store(desk, row, row["name"], [held for held in symbols if held != listing.symbol])


def delete(desk: Desk, key: Key) -> None:
    desk.db.execute("DELETE FROM watchlists WHERE seq = ?", (_row(desk, key)["seq"],))


def _store(desk: Desk, row: sqlite3.Row, name: str, symbols: list[str]) -> dict[str, Json]:
    desk.db.execute(
        "UPDATE watchlists SET name = ?, symbols = ?, updated_ns = ? WHERE seq = ?",
        (name, json.dumps(symbols), desk.now_ns, row["seq"]),
    )
    return show(desk, Key(row["id"]))


def _row(desk: Desk, key: Key) -> sqlite3.Row:
    column, value = ("id", canonical_identifier(key.id)) if key.id else ("name", key.name)
    row: sqlite3.Row | None = desk.db.execute(
        f"SELECT * FROM watchlists WHERE account = ? AND {column} = ?", (desk.account.number, value)
    ).fetchone()
    if row is None:
        raise not_found("watchlist not found")
    return row


def _name(desk: Desk, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise bad_parameter("watchlist name is required")
    if len(value) > _LONGEST_NAME:
        raise bad_parameter(f"watchlist name must be no more than {_LONGEST_NAME} characters")
    taken = desk.db.execute(
        "SELECT 1 FROM watchlists WHERE account = ? AND name = ?", (desk.account.number, value)
    ).fetchone()
    if taken is not None:
        raise bad_parameter("watchlist name must be unique")
    return value


def _symbols(desk: Desk, value: object) -> list[str]:
    """Return listed symbols in the order given, doubles dropped."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_parameter("symbols must be a list")
    symbols: list[str] = []
    for name in value:
        listing = find(name, desk.market.listings) if isinstance(name, str) else None
        if listing is None:
            raise not_found(f"symbol not found: {name}")
        if listing.symbol not in symbols:
            symbols.append(listing.symbol)
    return symbols


def _summary(desk: Desk, row: sqlite3.Row) -> dict[str, Json]:
    return {
        "id": row["id"],
        "account_id": desk.account.id,
        "created_at": timestamp(row["created_ns"]),
        "updated_at": timestamp(row["updated_ns"]),
        "name": row["name"],
    }


def _answer(desk: Desk, row: sqlite3.Row) -> dict[str, Json]:
    return {**_summary(desk, row), "assets": [asset_answer(LISTINGS[name]) for name in json.loads(row["symbols"])]}
