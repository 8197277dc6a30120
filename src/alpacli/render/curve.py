"""The geometry of a curve over time, whoever draws it: where a value lies, which levels and days the axes name."""

import math
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in a picture, with y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float


class Curve(NamedTuple):
    """Points of the picture, and the marks of both axes: a place and what is written there."""

    points: list[tuple[float, float]]
    levels: list[tuple[float, str]]
    days: list[tuple[float, str]]


def lay_out(days: Sequence[date], values: Sequence[float], box: Box, *, percent: bool = False, marks: int = 5) -> Curve:
    """Place values over their days in a box; there is at least one. Equal days lie equally far apart."""
    low, high = min(values), max(values)
    levels = round_levels(low, high)
    low, high = min(low, levels[0]), max(high, levels[-1])
    height = (high - low) or 1.0
    step = (box.right - box.left) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return box.bottom - (value - low) / height * (box.bottom - box.top)

    count = min(marks, len(days))
    places = sorted({round(number * (len(days) - 1) / max(count - 1, 1)) for number in range(count)})
    return Curve(
        [(box.left + place * step, y(value)) for place, value in enumerate(values)],
        [(y(level), level_text(level, levels, percent=percent)) for level in levels],
        [(box.left + place * step, day_text(days[place], days)) for place in places],
    )


def round_levels(low: float, high: float, count: int = 4) -> list[float]:
    """Return evenly spaced round numbers that span the values: steps of 1, 2 or 5 times a power of ten."""
    if high - low < abs(high) * 1e-9 or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def level_text(level: float, levels: Sequence[float], *, percent: bool) -> str:
    step = levels[1] - levels[0] if len(levels) > 1 else 1.0
    if percent:
        places = max(0, -math.floor(math.log10(step * 100))) if step * 100 < 1 else 0
        return f"{level * 100:.{places}f}%"
    places = min(6, -math.floor(math.log10(step))) if step < 1 else 0
    return f"{level:,.{places}f}"


def day_text(day: date, days: Sequence[date]) -> str:
    return f"{day:%b %d}" if days[-1].year == days[0].year else f"{day:%b %Y}"
