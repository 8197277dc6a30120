"""The equity curve as a PNG, drawn by Pillow: a line, an area, two axes.

matplotlib would bring eight packages and take half a second to load for what is here in one small module; Pillow is well
kept, has no dependency of its own, and brings a font. Everything is drawn twice as large and made smaller, which is
how the line gets its smooth edge.
"""

import io
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from alpacli.render.curve import Box, lay_out

_SIZE: Final = (1200, 630)
_LARGER: Final = 2
_PAPER, _INK, _FAINT, _GAIN, _LOSS = "#ffffff", "#1f2933", "#d5dbe1", "#16794c", "#b42318"


def equity_png(days: Sequence[date], equity: Sequence[Decimal], title: str) -> bytes:
    """Draw equity by day, oldest first; there is at least one."""
    from PIL import Image, ImageDraw, ImageFont

    scale = _LARGER
    width, height = _SIZE[0] * scale, _SIZE[1] * scale
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(18 * scale), ImageFont.load_default(26 * scale)
    box = Box(130 * scale, 90 * scale, width - 50 * scale, height - 70 * scale)
    values = [float(amount) for amount in equity]
    curve = lay_out(days, values, box)
    tone = _GAIN if values[-1] >= values[0] else _LOSS
    for y, text in curve.levels:
        draw.line([(box.left, y), (box.right, y)], _FAINT, scale)
        draw.text((box.left - 12 * scale, y), text, _INK, small, anchor="rm")
    for x, text in curve.days:
        draw.text((x, box.bottom + 18 * scale), text, _INK, small, anchor="mt")
    if len(curve.points) > 1:
        area = Image.new("L", (width, height), 0)
        ImageDraw.Draw(area).polygon([*curve.points, (box.right, box.bottom), (box.left, box.bottom)], fill=32)
        image.paste(Image.new("RGB", (width, height), tone), mask=area)
        draw.line(curve.points, tone, 3 * scale, joint="curve")
    else:
        _dot(draw, curve.points[0], 5 * scale, tone)
    draw.text((box.left, 28 * scale), title, _INK, large)
    out = io.BytesIO()
    image.resize(_SIZE, Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


def _dot(draw: Any, at: tuple[float, float], radius: float, tone: str) -> None:
    draw.ellipse([at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius], fill=tone)
