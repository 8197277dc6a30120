"""What is listed on the offline exchange: some sixty well-known instruments with plausible levels of 2026.

One row decides everything that the tape and the wire need to know about an instrument. Changing a row changes that
instrument's market under every seed, so rows are only ever added.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final

from alpacli.sim.answers import Json, decimal_text, identifier, not_found
from alpacli.sim.contracts import MULTIPLIER, Contract, of_id, parse, root_of


class Listing:
    """One instrument. It is never changed; its attributes are slots, because every order asks for some ten of them.

    ``base`` is the level its price swings around, in units of its tick (``10 ** -places`` dollars). ``swing_permille``
    is how far a block of about three months may carry it, ``beta_percent`` how much of the common factor it follows,
    ``spread`` the constant distance of bid and ask in ticks, ``daily_volume`` units traded on a usual day. ``multiplier``
    is how many units of its price one of it is worth: an option is quoted by the share.
    """

    __slots__ = (
        *(
            "asset_class",
            "base",
            "beta_percent",
            "contract",
            "crypto",
            "daily_volume",
            "exchange",
            "multiplier",
            "name",
        ),
        *("places", "shortable", "spread", "swing_permille", "symbol", "tick"),
    )

    def __init__(
        self,
        symbol: str,
        name: str,
        exchange: str,
        base: int,
        places: int,
        swing_permille: int,
        beta_percent: int,
        spread: int,
        daily_volume: int,
        *,
        shortable: bool = True,
        contract: Contract | None = None,
    ) -> None:
        self.symbol = symbol
        self.name = name
        self.exchange = exchange
        self.base = base
        self.places = places
        self.swing_permille = swing_permille
        self.beta_percent = beta_percent
        self.spread = spread
        self.daily_volume = daily_volume
        self.shortable = shortable
        self.contract = contract
        self.crypto = exchange == "CRYPTO"
        self.asset_class = "us_option" if contract is not None else "crypto" if self.crypto else "us_equity"
        self.tick = Decimal(1).scaleb(-places)
        self.multiplier = 1 if contract is None else MULTIPLIER

    @property
    def asset_id(self) -> str:
        return _asset_id(self.symbol) if self.contract is None else self.contract.id

    @property
    def position_symbol(self) -> str:
        """The name in positions, where Alpaca writes ``BTCUSD`` for ``BTC/USD``."""
        return self.symbol.replace("/", "")

    def price(self, ticks: int) -> Decimal:
        return ticks * self.tick


@lru_cache(maxsize=8192)
def _asset_id(symbol: str) -> str:
    return identifier("asset", symbol)


_EQUITIES: Final = """
SPY|SPDR S&P 500 ETF Trust|ARCA|690.00|40|100|1|62000000
QQQ|Invesco QQQ Trust, Series 1|NASDAQ|620.00|50|120|1|48000000
IWM|iShares Russell 2000 ETF|ARCA|248.00|60|110|1|31000000
DIA|SPDR Dow Jones Industrial Average ETF Trust|ARCA|480.00|40|90|3|3600000
VOO|Vanguard S&P 500 ETF|ARCA|634.00|40|100|2|6400000
VTI|Vanguard Total Stock Market ETF|ARCA|340.00|40|100|2|3900000
EFA|iShares MSCI EAFE ETF|ARCA|97.00|50|80|1|16000000
EEM|iShares MSCI Emerging Markets ETF|ARCA|55.00|60|80|1|27000000
GLD|SPDR Gold Shares|ARCA|395.00|90|10|3|9800000
SLV|iShares Silver Trust|ARCA|52.00|150|20|1|28000000
TLT|iShares 20+ Year Treasury Bond ETF|NASDAQ|89.00|60|-20|1|34000000
HYG|iShares iBoxx $ High Yield Corporate Bond ETF|ARCA|81.00|20|30|1|33000000
XLE|Energy Select Sector SPDR Fund|ARCA|46.00|80|70|1|21000000
XLF|Financial Select Sector SPDR Fund|ARCA|54.00|60|90|1|38000000
XLK|Technology Select Sector SPDR Fund|ARCA|145.00|70|120|1|11000000
ARKK|ARK Innovation ETF|BATS|82.00|140|150|2|9500000
AAPL|Apple Inc. Common Stock|NASDAQ|272.00|90|110|1|48000000
MSFT|Microsoft Corporation Common Stock|NASDAQ|488.00|80|105|2|21000000
NVDA|NVIDIA Corporation Common Stock|NASDAQ|186.00|150|160|1|185000000
AMZN|Amazon.com, Inc. Common Stock|NASDAQ|231.00|100|120|1|42000000
GOOGL|Alphabet Inc. Class A Common Stock|NASDAQ|312.00|110|110|2|34000000
GOOG|Alphabet Inc. Class C Capital Stock|NASDAQ|313.00|110|110|2|21000000
META|Meta Platforms, Inc. Class A Common Stock|NASDAQ|655.00|120|120|5|14000000
TSLA|Tesla, Inc. Common Stock|NASDAQ|445.00|220|180|3|83000000
AVGO|Broadcom Inc. Common Stock|NASDAQ|348.00|160|150|5|24000000
AMD|Advanced Micro Devices, Inc. Common Stock|NASDAQ|216.00|190|170|2|45000000
INTC|Intel Corporation Common Stock|NASDAQ|37.00|190|130|1|92000000
NFLX|Netflix, Inc. Common Stock|NASDAQ|94.00|120|100|2|39000000
ADBE|Adobe Inc. Common Stock|NASDAQ|350.00|110|100|8|3900000
CRM|Salesforce, Inc. Common Stock|NYSE|262.00|110|100|4|7100000
ORCL|Oracle Corporation Common Stock|NYSE|198.00|170|130|4|22000000
CSCO|Cisco Systems, Inc. Common Stock|NASDAQ|77.00|70|80|1|19000000
IBM|International Business Machines Corporation Common Stock|NYSE|303.00|80|70|6|3800000
QCOM|QUALCOMM Incorporated Common Stock|NASDAQ|174.00|110|120|3|7900000
MU|Micron Technology, Inc. Common Stock|NASDAQ|286.00|200|150|6|26000000
PLTR|Palantir Technologies Inc. Class A Common Stock|NASDAQ|181.00|230|180|2|49000000
COIN|Coinbase Global, Inc. Class A Common Stock|NASDAQ|242.00|240|190|8|9900000
UBER|Uber Technologies, Inc. Common Stock|NYSE|82.00|110|110|1|18000000
SHOP|Shopify Inc. Class A Subordinate Voting Shares|NASDAQ|163.00|170|150|4|8200000
JPM|JPMorgan Chase & Co. Common Stock|NYSE|322.00|70|100|5|8700000
BAC|Bank of America Corporation Common Stock|NYSE|55.00|80|100|1|36000000
GS|The Goldman Sachs Group, Inc. Common Stock|NYSE|890.00|90|110|30|2100000
V|Visa Inc. Class A Common Stock|NYSE|350.00|60|80|5|6600000
MA|Mastercard Incorporated Class A Common Stock|NYSE|571.00|60|80|12|2800000
BRK.B|Berkshire Hathaway Inc. Class B Common Stock|NYSE|502.00|50|70|6|4300000
UNH|UnitedHealth Group Incorporated Common Stock|NYSE|332.00|130|50|8|7800000
JNJ|Johnson & Johnson Common Stock|NYSE|207.00|50|40|3|8100000
LLY|Eli Lilly and Company Common Stock|NYSE|1075.00|120|60|60|3300000
PFE|Pfizer Inc. Common Stock|NYSE|25.00|70|50|1|47000000
XOM|Exxon Mobil Corporation Common Stock|NYSE|121.00|80|60|1|15000000
CVX|Chevron Corporation Common Stock|NYSE|152.00|80|60|2|8300000
KO|The Coca-Cola Company Common Stock|NYSE|70.00|40|40|1|16000000
PEP|PepsiCo, Inc. Common Stock|NASDAQ|144.00|50|40|2|7200000
WMT|Walmart Inc. Common Stock|NASDAQ|112.00|60|60|1|19000000
COST|Costco Wholesale Corporation Common Stock|NASDAQ|865.00|70|70|25|2300000
HD|The Home Depot, Inc. Common Stock|NYSE|345.00|70|80|8|4100000
MCD|McDonald's Corporation Common Stock|NYSE|306.00|50|50|6|3200000
DIS|The Walt Disney Company Common Stock|NYSE|113.00|90|90|1|9400000
BA|The Boeing Company Common Stock|NYSE|217.00|120|100|5|7600000
CAT|Caterpillar Inc. Common Stock|NYSE|577.00|100|110|20|3000000
F|Ford Motor Company Common Stock|NYSE|13.20|90|100|1|58000000
GME|GameStop Corp. Class A Common Stock|NYSE|21.00|200|120|1|9100000
"""

_CRYPTO: Final = """
BTC/USD|Bitcoin / US Dollar|91000.00|2|130|100|1200|900
ETH/USD|Ethereum / US Dollar|3100.00|2|170|130|160|9000
SOL/USD|Solana / US Dollar|132.000|3|210|150|40|60000
LTC/USD|Litecoin / US Dollar|82.000|3|180|120|40|21000
LINK/USD|Chainlink / US Dollar|13.5000|4|210|140|60|90000
DOGE/USD|Dogecoin / US Dollar|0.13500|5|230|150|12|9000000
"""


def _equity(row: str) -> Listing:
    symbol, name, exchange, base, swing, beta, spread, volume = row.split("|")
    return Listing(
        symbol,
        name,
        exchange,
        int(base.replace(".", "")),
        2,
        int(swing),
        int(beta),
        int(spread),
        int(volume),
        shortable=symbol != "GME",
    )


def _pair(row: str) -> Listing:
    symbol, name, base, places, swing, beta, spread, volume = row.split("|")
    return Listing(
        symbol,
        name,
        "CRYPTO",
        int(base.replace(".", "")),
        int(places),
        int(swing),
        int(beta),
        int(spread),
        int(volume),
        shortable=False,
    )


class _Directory(dict[str, Listing]):
    """Instruments by symbol. One that has no row is not in it, and still has terms: a replay trades what its files name."""

    def __missing__(self, symbol: str) -> Listing:
        return unlisted(symbol)


@lru_cache(maxsize=8192)
def unlisted(symbol: str) -> Listing:
    """Return the terms of what no row describes: an option, a stock in cents, or a coin in billionths of a dollar."""
    contract = parse(symbol)
    if contract is not None:
        return Listing(symbol, contract.name, "", 0, 2, 0, 0, 0, 0, shortable=False, contract=contract)
    if "/" in symbol:
        return Listing(symbol, symbol, "CRYPTO", 0, 9, 0, 0, 0, 0, shortable=False)
    return Listing(symbol, symbol, "NASDAQ", 0, 2, 0, 0, 0, 0)


LISTINGS: Final[dict[str, Listing]] = _Directory(
    (listing.symbol, listing)
    for listing in (*map(_equity, _EQUITIES.split("\n")[1:-1]), *map(_pair, _CRYPTO.split("\n")[1:-1]))
)


def find(symbol_or_id: str, listings: Mapping[str, Listing] = LISTINGS) -> Listing | None:
    """Return the instrument of a symbol (``BTC/USD`` and ``BTCUSD`` are the same) or an asset id; case matters.

    ``listings`` is what the market at hand trades, and what there are options on: any contract on them is found, also one
    that is not listed, or no longer.
    """
    listing = listings.get(symbol_or_id)
    contract = parse(symbol_or_id) or of_id(symbol_or_id) if listing is None else None
    if contract is not None:
        return unlisted(contract.symbol) if underlying_of(contract, listings) in listings else None
    if listing is None and symbol_or_id.isalnum():
        listing = next(
            (item for item in listings.values() if item.crypto and item.position_symbol == symbol_or_id), None
        )
    if listing is None and len(symbol_or_id) in (32, 36):
        wanted = symbol_or_id.replace("-", "")
        listing = next((item for item in listings.values() if item.asset_id.replace("-", "") == wanted), None)
    return listing


def underlying_of(contract: Contract, listings: Mapping[str, Listing] = LISTINGS) -> str:
    """Return the symbol of the stock that a contract is about; a root that names no stock is its own."""
    if contract.root in listings:
        return contract.root
    return _ROOTS.get(contract.root, contract.root)


_ROOTS: Final = {root_of(item.symbol): item.symbol for item in LISTINGS.values() if not item.crypto}


def asset_answer(listing: Listing) -> dict[str, Json]:
    """Return the asset as ``GET /v2/assets`` shows it."""
    answer: dict[str, Json] = {
        "id": listing.asset_id,
        "class": listing.asset_class,
        "exchange": listing.exchange,
        "symbol": listing.symbol,
        "name": listing.name,
        "status": "active",
        "tradable": True,
        "marginable": not listing.crypto,
        "maintenance_margin_requirement": 100 if listing.crypto else 30,
        "margin_requirement_long": "100" if listing.crypto else "30",
        "margin_requirement_short": "100" if listing.crypto else "30",
        "shortable": listing.shortable,
        "easy_to_borrow": listing.shortable,
        "borrow_status": "easy_to_borrow" if listing.shortable else "hard_to_borrow",
        "fractionable": True,
        "attributes": [] if listing.crypto else ["fractional_eh_enabled", "has_options", "overnight_tradable"],
    }
    if listing.crypto:
        answer["min_order_size"] = decimal_text(MIN_CRYPTO_ORDER)
        answer["min_trade_increment"] = decimal_text(MIN_CRYPTO_ORDER)
        answer["price_increment"] = decimal_text(listing.price(1))
    return answer


MIN_CRYPTO_ORDER: Final = Decimal("0.000000001")


def assets_answer(
    status: str | None,
    asset_class: str | None,
    exchange: str | None,
    attributes: frozenset[str],
    listings: Mapping[str, Listing] = LISTINGS,
) -> list[Json]:
    """Return the listed assets that match. Without a class only US equities are listed, as at Alpaca."""
    if status not in (None, "", "all", "active"):
        return []
    wanted = asset_class or "us_equity"
    rows: list[Json] = []
    for listing in listings.values():
        if listing.asset_class != wanted or (exchange and listing.exchange != exchange):
            continue
        answer = asset_answer(listing)
        offered = answer["attributes"]
        if attributes and not (isinstance(offered, list) and attributes & {str(item) for item in offered}):
            continue
        rows.append(answer)
    return rows


def one_asset(symbol_or_id: str, listings: Mapping[str, Listing] = LISTINGS) -> dict[str, Json]:
    listing = find(symbol_or_id, listings)
    if listing is None:
        raise not_found(f"asset not found for {symbol_or_id}")
    return asset_answer(listing)
