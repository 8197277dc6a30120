"""Which feed stock history comes from: the SIP wherever the plan gives it, which is everything but the last 15 minutes.

Whether it gives those too is asked once a day, with one request, and only when somebody wants them; the answer is kept
(``plan``). Without them the question ends 15 minutes ago, or is put to IEX when it only wants those. What was chosen is
always said.
"""

from collections.abc import Sequence
from typing import Final

from alpacli.domain.batches import instant_text
from alpacli.domain.series import MINUTE_NS, SECOND_NS, Market, Span, market_of
from alpacli.errors import AlpacaAPIError
from alpacli.history.chains import Read
from alpacli.history.plan import Plan
from alpacli.wire.market import recent_sip

DELAY_NS: Final = 15 * MINUTE_NS
_ONLY: Final[dict[Market, str]] = {"crypto": "us", "options": "opra"}
_SAID: Final[dict[Market, str]] = {
    "stocks": "stocks come from the feed {feed}",
    "crypto": "crypto comes from Alpaca's own exchange (feed us)",
    "options": "options come from OPRA, as far as the plan goes",
}


class FeedChoice:
    """Chooses by the plan of one account."""

    def __init__(self, read: Read, plan: Plan) -> None:
        self._read = read
        self._plan = plan

    def choose(
        self,
        market: Market,
        feed: str | None,
        asked: Span,
        now_ns: int,
        symbols: Sequence[str],
        *,
        latest: bool = False,
    ) -> tuple[str, int, str]:
        """Return the feed, the moment up to which to ask, and what to tell people about it.

        ``latest``: only the end matters, as for the last few bars.
        """
        if market != "stocks" or feed is not None:
            made = _ONLY.get(market) or feed or ""
            return made, asked[1], _SAID[market].format(feed=made)
        stock = next(symbol for symbol in symbols if market_of(symbol) == "stocks")
        if asked[1] <= now_ns - DELAY_NS or self._has_recent_sip(stock, now_ns):
            return "sip", asked[1], _SAID["stocks"].format(feed="sip (all US exchanges)")
        delayed_ns = now_ns - DELAY_NS
        if asked[0] >= delayed_ns and not latest:
            return (
                "iex",
                asked[1],
                "stocks come from the iex feed alone: the plan has no SIP data of the last 15 minutes",
            )
        until = instant_text(delayed_ns // SECOND_NS * SECOND_NS)
        said = (
            f"stocks come from the sip feed up to {until}: the plan has nothing later of it, feed iex (--feed iex) has"
        )
        return "sip", delayed_ns, said

    def live(self, symbol: str, now_ns: int) -> str:
        """Return the feed for the latest prices of stocks."""
        return "sip" if self._has_recent_sip(symbol, now_ns) else "iex"

    def _has_recent_sip(self, symbol: str, now_ns: int) -> bool:
        known = self._plan.recent_sip(now_ns)
        if known is not None:
            return known
        try:
            has = bool(self._read(recent_sip(symbol)))
        except AlpacaAPIError as error:
            if error.status not in (402, 403):
                raise
            has = False
        self._plan.learn(now_ns, recent_sip=has)
        return has
