"""What a gateway is made of, put together once by ``serve`` and handed to every module; and its limits."""

from typing import NamedTuple

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.gateway.access import Access
from alpacli.gateway.relay import Relay
from alpacli.gateway.remembered import Remembered
from alpacli.gateway.signing import Signatures
from alpacli.gateway.tally import Tally
from alpacli.gateway.webhooks import Webhooks
from alpacli.ports import Clock, Randomness
from alpacli.runtime import Warn
from alpacli.settings import Settings
from alpacli.store.halt import HaltSwitch


class Limits(NamedTuple):
    """What clients may ask of a gateway: sizes in bytes, ``token_rate`` in requests a minute and client (0 is no limit).

    ``request_s`` is how long a whole request may take to arrive; ``connections`` counts all clients together.
    """

    header_bytes: int = 16 * 1024
    target_bytes: int = 8 * 1024
    body_bytes: int = 256 * 1024
    request_s: float = 15.0
    message_bytes: int = 512 * 1024
    symbols: int = 10_000
    connections: int = 1000
    sockets_per_token: int = 100
    token_rate: int = 0


class Parts(NamedTuple):
    """The parts; time and randomness are arguments here as everywhere."""

    settings: Settings
    client: AsyncAlpacaClient
    access: Access
    signatures: Signatures
    remembered: Remembered
    halt: HaltSwitch
    limits: Limits
    clock: Clock
    rng: Randomness
    warn: Warn
    relay: Relay
    webhooks: Webhooks
    tally: Tally
