"""How one value is written for a person: money, quantities, percentages, times, ages. Shared by all tables and charts."""

from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Final, NamedTuple

from rich.text import Text

NOTHING: Final = "–"
GAIN: Final = "green"
LOSS: Final = "red"


class Frame(NamedTuple):
    """What a renderer must know beside the value: the width in cells, the moment, the zone (``None``: this machine's).

    ``age_s`` is the age of the data in seconds, ``None`` when it is fresh, and ``aged`` what was done so long ago.
    """

    width: int
    now: datetime
    zone: tzinfo | None = None
    sim: bool = False
    age_s: float | None = None
    aged: str = "cached"


def money(value: Decimal | None) -> str:
    """Write an amount with thousands separators and cents: half a cent rounds to even, and zero has no sign."""
    return NOTHING if value is None else f"{value:z,.2f}"


def difference(value: Decimal) -> Text:
    """Write by how much two amounts differ: what cents do not show may still part how the two are rounded."""
    if not value or round(value, 2):
        return signed(value)
    exact = apart(value)
    told = "" if exact.startswith("less") else f"{'-' if value < 0 else '+'}{exact}, "
    return Text(f"{told}less than a cent: the amounts are rounded")


def apart(value: Decimal) -> str:
    """Write how far two amounts are apart: below a cent with the digits that it takes, as far as a millionth."""
    if not value or round(value, 2):
        return money(abs(value))
    text = f"{abs(value):.6f}".rstrip("0")
    return text if Decimal(text) else "less than 0.000001"


def counted(number: int, thing: str) -> str:
    """Write how many things there are: 1 day, 2 days."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def price(value: Decimal | None) -> str:
    """Write a price: at least two decimals, at most six significant below one."""
    if value is None:
        return NOTHING
    places = max(2, min(6, _places(value)))
    return f"{value:,.{places}f}"


def quantity(value: Decimal | None) -> str:
    """Write shares with all the decimals they have."""
    return NOTHING if value is None else f"{value:,.{_places(value)}f}"


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def signed(value: Decimal | None) -> Text:
    """Write a gain or loss with its sign and colour; what rounds to zero has no sign."""
    if value is None:
        return Text(NOTHING, style="dim")
    return _toned(_with_sign(value), value)


def percent(fraction: Decimal | None) -> Text:
    """Write a fraction (0.0084) as a signed percentage (+0.84%)."""
    if fraction is None:
        return Text(NOTHING, style="dim")
    return _toned(f"{_with_sign(fraction * 100)}%", fraction)


def _with_sign(value: Decimal) -> str:
    text = f"{value:+,.2f}"
    return text[1:] if not text.strip("+-0.,") else text


def _toned(text: str, value: Decimal) -> Text:
    """Colour a gain or loss; one that shows as zero is neither."""
    shows = text[0] in "+-"
    return Text(text, style=GAIN if shows and value > 0 else LOSS if shows and value < 0 else "")


def moment(value: datetime | None, frame: Frame, *, seconds: bool = True, dated: bool = False) -> str:
    """Write a time in the frame's zone, always with the zone's name; today's date is left out unless ``dated``."""
    if value is None:
        return NOTHING
    there = value.astimezone(frame.zone)
    clock = f"{there:%H:%M:%S}" if seconds else f"{there:%H:%M}"
    if not dated and there.date() == frame.now.astimezone(frame.zone).date():
        return f"{clock} {_zone_name(there)}"
    return f"{there:%Y-%m-%d} {clock} {_zone_name(there)}"


def _zone_name(value: datetime) -> str:
    name = value.tzname() or "UTC"
    return name if name.isascii() and name.isprintable() and len(name) <= 8 else f"{value:%z}"


def day(value: date | None) -> str:
    return NOTHING if value is None else f"{value:%a %Y-%m-%d}"


def ago(seconds: float) -> str:
    """Write a span: 2.1 s, 45 s, 12 min, 3.2 h, 4 d."""
    for limit, unit, size in ((10, "s", 1), (120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit in (10, 172800) else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(count: int) -> str:
    """Write a size in bytes with a binary unit."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def words(value: object) -> Text:
    """Write foreign text as it is: no markup, no control characters."""
    if value is None or value == "":
        return Text(NOTHING, style="dim")
    return Text("".join(letter if letter.isprintable() else "�" for letter in str(value)))
