"""Which trades the computed market has: how many in a minute, when, how large, and what they come to in a bar.

A minute has sixty trades, give or take forty, spread over as many equal parts of it. Their number is the difference of two
hashed edges, and their sizes share out what the tape says was traded in that minute, to the last unit. So what any whole
minutes traded, and in how many trades, is known from their two ends, without making a single one of them: a day's bar has
the volume and the count of its minutes' bars, and ten years of days are read in a second (``bars``).

Sizes are in lots: shares, or thousandths of a coin. The last trade before a close is the closing print: it comes in the last
nanosecond, at the price at which the close finds the tape, by which positions are valued until the next one.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.displacement import GOLDEN, mix
from alpacli.sim.listing import Listing

MINUTE_NS: Final = 60 * SECOND_NS
NUMBERS: Final = 128
"""How many numbers a minute has for its trades; those at the end are for other uses of the same hash."""

USUAL: Final = 60
EARLY: Final = 40
FEWEST_LOTS: Final = 100
"""What a minute trades at least: a lot for each trade that it can have."""

PARTS_BITS: Final = 20
PARTS_SHIFT: Final = 24
MOST_WEIGHT: Final = 300
WEIGHT_SHIFT: Final = 44
EDGE: Final = 126
FALSE_PRINT: Final = 127
"""The number of the trade that a minute may have beside its own, and that is canceled soon after (``amendments``)."""

_MASK: Final = (1 << 64) - 1


class Print(NamedTuple):
    """One trade: the tape's price at ``priced_ns`` is what it is done at. ``number`` is its id, ``dice`` its hash."""

    number: int
    at_ns: int
    priced_ns: int
    lots: int
    dice: int


class Part(NamedTuple):
    """What trades come to, in whole ticks and lots; ``value`` is the sum of their prices times their sizes."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    value: int


def dice_of(key: int, number: int) -> int:
    """Return the 64-bit hash of a number under a key."""
    return mix(key ^ (number * GOLDEN & _MASK))


def count_of(key: int, minute: int) -> int:
    """Return how many trades a minute has: from 21 to 99."""
    return USUAL + early(key, minute + 1) - early(key, minute)


def early(key: int, minute: int) -> int:
    """Return how many trades come before a minute's edge that are not due until after it."""
    return dice_of(key, minute * NUMBERS + EDGE) % EARLY


def moment_ns(minute: int, number: int, count: int, dice: int) -> int:
    """Return when one of ``count`` trades happens, or would."""
    part = (number << PARTS_BITS) + (dice >> PARTS_SHIFT) % (1 << PARTS_BITS)
    return minute * MINUTE_NS + part * MINUTE_NS // (count << PARTS_BITS)


def prints_of(key: int, minute: int, lots: int, close_ns: int | None) -> list[Print]:
    """Return the trades of a minute that the tape says ``lots`` of; ``close_ns`` is its end where that is a close."""
    count = count_of(key, minute)
    dices = [dice_of(key, minute * NUMBERS + number) for number in range(count)]
    weights = [weight_of(dice) for dice in dices]
    whole, shared = sum(weights), lots + FEWEST_LOTS - count
    prints = []
    gone = before = 0
    for number, (dice, weight) in enumerate(zip(dices, weights, strict=True)):
        gone += weight
        until = shared * gone // whole
        at_ns = moment_ns(minute, number, count, dice)
        prints.append(Print(minute * NUMBERS + number, at_ns, at_ns, 1 + until - before, dice))
        before = until
    if close_ns is not None:
        prints[-1] = prints[-1]._replace(at_ns=close_ns - 1, priced_ns=close_ns)
    return prints


def weight_of(dice: int) -> int:
    return 1 + (dice >> WEIGHT_SHIFT) % MOST_WEIGHT


def joined(parts: Sequence[Part]) -> Part:
    """Return what parts come to that follow one another."""
    return Part(
        parts[0].open,
        max(part.high for part in parts),
        min(part.low for part in parts),
        parts[-1].close,
        sum(part.volume for part in parts),
        sum(part.trades for part in parts),
        sum(part.value for part in parts),
    )


def part_of(listing: Listing, trades: Iterable[tuple[Decimal, Decimal]]) -> Part | None:
    """Return what prices and sizes come to; ``None`` where there are none."""
    rows = [(int(price.scaleb(listing.places)), _lots(listing, size)) for price, size in trades]
    if not rows:
        return None
    prices = [price for price, _ in rows]
    return Part(
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(lots for _, lots in rows),
        len(rows),
        sum(price * lots for price, lots in rows),
    )


def size_of(listing: Listing, lots: int) -> Decimal:
    """Return lots as shares or coins."""
    return Decimal(lots).scaleb(-_places(listing))


def _lots(listing: Listing, size: Decimal) -> int:
    return int(size.scaleb(_places(listing)))


def _places(listing: Listing) -> int:
    return _COIN_PLACES if listing.crypto else 0


_COIN_PLACES: Final = 3
