"""The streams that Alpaca has, by the names that people use for them."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from alpacli.arguments import a_mapping, a_text, texts
from alpacli.domain.series import check_symbol, market_of
from alpacli.domain.ticks import Interest
from alpacli.errors import UsageError


class Feed(NamedTuple):
    """One endpoint. ``host`` says which URL it is under; ``channels`` are the lists it knows, the default ones first."""

    name: str
    path: str
    host: Literal["stream", "trading"]
    encoding: Literal["json", "msgpack"]
    channels: tuple[str, ...]
    default: tuple[str, ...]

    @property
    def market(self) -> str:
        """Which symbols it has, as ``market_of`` tells them apart; empty where they are of any kind, or none."""
        if self.name in ("crypto", "options", "opra"):
            return "options" if self.name == "opra" else self.name
        return "" if self.name in ("news", "updates") else "stocks"


_STOCK_CHANNELS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances"),
    *("corrections", "cancelErrors"),
)
_PLAIN: Final = ("trades", "quotes")

FEEDS: Final = {
    feed.name: feed
    for feed in (
        *(
            Feed(name, f"/v2/{name}", "stream", "json", _STOCK_CHANNELS, _PLAIN)
            for name in ("iex", "sip", "delayed_sip", "test")
        ),
        *(Feed(name, f"/v1beta1/{name}", "stream", "json", _STOCK_CHANNELS, _PLAIN) for name in ("boats", "overnight")),
        Feed(
            "crypto",
            "/v1beta3/crypto/us",
            "stream",
            "json",
            ("trades", "quotes", "bars", "updatedBars", "dailyBars", "orderbooks"),
            _PLAIN,
        ),
        Feed("options", "/v1beta1/indicative", "stream", "msgpack", _PLAIN, _PLAIN),
        Feed("opra", "/v1beta1/opra", "stream", "msgpack", _PLAIN, _PLAIN),
        Feed("news", "/v1beta1/news", "stream", "json", ("news",), ("news",)),
        Feed("updates", "/stream", "trading", "json", ("trade_updates",), ("trade_updates",)),
    )
}
"""``options`` is the free indicative feed, ``opra`` the paid one; ``updates`` are the account's own orders."""


def find_feed(name: str) -> Feed:
    """Return the feed of this name.

    Raises:
        UsageError: there is none.
    """
    feed = FEEDS.get(a_text("feed", name, f"choose one of {', '.join(FEEDS)}"))
    if feed is None:
        raise UsageError(f"there is no feed {name!r}", f"choose one of {', '.join(FEEDS)}")
    return feed


def interest_in(channels: Mapping[str, Sequence[str]]) -> Interest:
    """Return the interest that a program's lists of symbols mean, whichever letters they are written in.

    Raises:
        UsageError: one text in place of a list, which would be a symbol for each of its letters; or what is no symbol.
    """
    a_mapping("channels", channels, 'give a dict of lists, like {"trades": ["AAPL"]}')
    wanted = {a_text("a channel", channel): texts(channel, symbols) for channel, symbols in channels.items()}
    for channel, symbols in wanted.items():
        if any(not symbol.strip() for symbol in symbols):
            raise UsageError(f"{channel} holds an empty symbol", "give one symbol per item")
    return Interest(
        {channel: [it if it == "*" else check_symbol(it) for it in symbols] for channel, symbols in wanted.items()}
    )


def check_interest(feed: Feed, interest: Interest) -> None:
    """Refuse channels and symbols that the feed does not have, before anything is sent.

    Raises:
        UsageError: one of them is not the feed's, or nothing was asked for.
    """
    if not interest:
        raise UsageError("nothing to stream", 'name symbols; ["*"] (--all-symbols) is all of them')
    for channel, symbols in interest.channels.items():
        if channel not in feed.channels:
            raise UsageError(f"the {feed.name} feed has no {channel}", f"it has {', '.join(feed.channels)}")
        for symbol in sorted(symbols):
            if symbol != "*" and feed.market not in ("", market_of(symbol)):
                named = f"the {feed.name} feed has no {symbol}: that is on {market_of(symbol)}"
                raise UsageError(named, "run one stream for each kind of symbol")
