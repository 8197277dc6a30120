"""The gateway's WebSocket endpoints: Alpaca's own, for its SDK, and ``/api/v1/broker/stream``; and how the relay stands.

A client proves itself in the request's headers, in a subprotocol or in its first message, never in the URL. The grant is
looked at again twice a second for as long as the connection lives.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from fastapi import APIRouter, Depends, Response
from starlette.routing import WebSocketRoute

from alpacli.domain.values import Model
from alpacli.errors import AccessDenied
from alpacli.gateway.access import SUBPROTOCOL, Credentials, from_headers, from_subprotocols
from alpacli.gateway.answers import success
from alpacli.gateway.broker_api import Envelope, read_in_full
from alpacli.gateway.connection import Connection
from alpacli.gateway.conversations import (
    POLICY,
    BrokerConversation,
    Conversation,
    MarketConversation,
    UpdatesConversation,
)
from alpacli.gateway.door import may
from alpacli.gateway.parts import Parts
from alpacli.gateway.relay import Relay
from alpacli.gateway.tokens import Grant
from alpacli.streams.feeds import FEEDS, Feed
from alpacli.wire.asgi import EXTENSION
from alpacli.wire.serving import LOGIN_WITHIN_S, TEXTS, login_in

BROKER_PATH: Final = "/api/v1/broker/stream"
_LOOK_AGAIN_S: Final = 0.5
_SECRETS: Final = frozenset(
    ("token", "access_token", "key", "secret", "api_key", "apikey", "authorization", "password")
)

_Event = MutableMapping[str, Any]  # Any: ASGI's own typing of a scope and its events
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]


class FeedState(Model):
    """One feed: how its connection is, and how much came. ``symbols`` counts what is wanted, by channel."""

    feed: str
    state: str
    shared: bool
    clients: int
    symbols: dict[str, int]
    messages: int
    reconnects: int
    gaps: int
    refusals: int
    unsaid: int


class ClientState(Model):
    """One socket: whose, what it wants by feed, and what it got; ``conflated`` quotes were replaced by newer ones."""

    name: str
    format: str
    feeds: dict[str, dict[str, list[str]]]
    sent: int
    conflated: int
    waiting_bytes: int


class RelayState(Model):
    feeds: list[FeedState]
    clients: list[ClientState]
    messages_out: int
    conflated: int
    cut_off: int


def router(parts: Parts) -> APIRouter:
    routes = APIRouter()
    occupancy: Counter[str] = Counter()
    for feed in FEEDS.values():
        routes.routes.append(WebSocketRoute(feed.path, _Endpoint(parts, occupancy, feed)))
    routes.routes.append(WebSocketRoute(BROKER_PATH, _Endpoint(parts, occupancy, None)))

    reader = [Depends(may(parts, "read")), Depends(read_in_full)]

    @routes.get(f"{BROKER_PATH}/status", response_model=Envelope[RelayState], dependencies=reader, tags=["service"])
    async def stream_status() -> Response:
        """How the relay stands: each feed's state and counts, and who is connected."""
        return success(_status(parts.relay))

    return routes


def _basic(headers: Mapping[str, str]) -> Credentials:
    """Return the key pair of HTTP's Basic scheme, which Alpaca's data sockets take too."""
    login = login_in(headers)
    return Credentials() if login is None or login.key_id == "oauth" else Credentials("", *login)


def _status(relay: Relay) -> RelayState:
    clients = [
        ClientState(
            name=client.name,
            format=client.form.name,
            feeds={feed: interest.as_dict() for feed, interest in sorted(client.interests.items())},
            sent=client.sent,
            conflated=client.conflated,
            waiting_bytes=client.waiting_bytes,
        )
        for client in relay.clients
    ]
    feeds = [FeedState(**feed._asdict()) for feed in relay.feeds()]
    return RelayState(
        feeds=feeds,
        clients=clients,
        messages_out=relay.messages_out,
        conflated=relay.conflated,
        cut_off=relay.cut_off,
    )


class _Endpoint:
    """One WebSocket path as an ASGI application; without a feed it is alpacli's own."""

    def __init__(self, parts: Parts, occupancy: Counter[str], feed: Feed | None) -> None:
        self._parts = parts
        self._occupancy = occupancy
        self._feed = feed

    async def __call__(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        await receive()
        connection: Connection = scope["extensions"][EXTENSION]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        offered = scope["subprotocols"]
        shown = from_headers(headers) or from_subprotocols(offered) or _basic(headers)
        agreed = {"subprotocol": SUBPROTOCOL} if SUBPROTOCOL in offered else {}
        await send({"type": "websocket.accept", **agreed})
        talk = self._converse(scope, connection, headers)
        relay, client = self._parts.relay, talk.client
        connection.on_room = client.has_room
        relay.join(client)
        try:
            await self._serve(talk, receive, shown)
        finally:
            connection.on_room = None
            relay.leave(client)

    def _converse(self, scope: _Event, connection: Connection, headers: dict[str, str]) -> Conversation:
        relay, most_symbols = self._parts.relay, self._parts.limits.symbols
        peer = scope.get("client")
        name = f"{peer[0]}:{peer[1]}" if peer else "?"
        if self._feed is None:
            query = scope["query_string"].decode("latin-1")
            return BrokerConversation(relay, connection, query, name, self._parts.clock, most_symbols)
        if self._feed.host == "trading":
            return UpdatesConversation(relay, connection, name)
        return MarketConversation(self._feed, relay, connection, headers, name, most_symbols)

    async def _serve(self, talk: Conversation, receive: _Receive, shown: Credentials) -> None:
        """Hear the client until it leaves or has to go."""
        talk.begin()
        grant = await self._prove(talk, shown) if shown else None
        try:
            loop = asyncio.get_running_loop()
            give_up_at = loop.time() + LOGIN_WITHIN_S
            while not talk.client.over:
                look_again_at = give_up_at if grant is None else loop.time() + _LOOK_AGAIN_S
                try:
                    async with asyncio.timeout_at(look_again_at):
                        event = await receive()
                except TimeoutError:
                    event = None
                if grant is not None and not self._parts.access.holds(grant):
                    self._parts.relay.cut(talk.client, POLICY, "the token is no longer valid")
                elif event is None and grant is None:
                    talk.refuse(404, TEXTS[404])
                if event is None or talk.client.over:
                    continue
                if event["type"] != "websocket.receive":
                    return
                text = event.get("text")
                credentials = talk.receive(event["bytes"] if text is None else text)
                if credentials is not None and grant is None:
                    grant = await self._prove(talk, credentials)
        finally:
            if grant is not None:
                self._occupancy[grant.id] -= 1
                if not self._occupancy[grant.id]:
                    del self._occupancy[grant.id]

    async def _prove(self, talk: Conversation, credentials: Credentials) -> Grant | None:
        """Let the client in, or turn it away."""
        try:
            grant = await self._parts.access.admit(credentials, "stream")
        except AccessDenied as error:
            talk.turn_away(error)
            return None
        if self._occupancy[grant.id] >= self._parts.limits.sockets_per_token:
            talk.refuse(406, TEXTS[406])
            return None
        self._occupancy[grant.id] += 1
        talk.client.name = grant.name
        talk.let_in(grant)
        return grant
