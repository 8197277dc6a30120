"""Draw docs/images from the program itself: real commands, on a real terminal, on the offline exchange.

``make pictures`` runs it. Nothing in a picture is typed by hand, so a picture that no longer fits shows up as a change.
"""

import io
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import pyte
from benchmarks.measure import Command, alpacli, environment, run
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

IMAGES = Path(__file__).with_name("images")
COLUMNS = 104
STREAM_COLUMNS = 150
PICTURES = {
    "account": "account --sim",
    "positions": "positions --sim",
    "orders": "orders --sim --limit 8",
    "portfolio": "portfolio --sim",
    "limits": "limits --sim",
    "help": "--help",
}


def draw(name: str, arguments: str, env: dict[str, str]) -> None:
    """Run one command and keep what it drew as an SVG."""
    sample = run(Command([alpacli(), *arguments.split()], env, terminal=True, columns=COLUMNS))
    save(name, arguments, Text.from_ansi(sample.output.decode().replace("\r\n", "\n").rstrip("\n")), COLUMNS)


def save(name: str, arguments: str, drawn: Text, columns: int) -> None:
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (f"alpacli {arguments}", "bold")))
    console.print(drawn)
    svg = console.export_svg(title=f"alpacli {arguments}", theme=DIMMED_MONOKAI, unique_id=f"alpacli-{name}")
    text = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    (IMAGES / f"{name}.svg").write_text(text, encoding="utf-8")
    sys.stderr.write(f"docs/images/{name}.svg\n")


def draw_stream(env: dict[str, str]) -> None:
    """Keep what the live table showed last, read from the terminal by an emulator."""
    arguments = "stream AAPL MSFT NVDA TSLA SPY --sim --duration 40"
    sample = run(Command([alpacli(), *arguments.split()], env, terminal=True, columns=STREAM_COLUMNS))
    screen = pyte.Screen(STREAM_COLUMNS, 40)
    pyte.ByteStream(screen).feed(sample.output[: sample.output.rindex(b"\x1b[?1049l")])
    rows = [number for number in range(40) if screen.display[number].strip()]
    drawn = Text("\n").join(
        Text.assemble(
            *(
                ("".join(letter.data for letter in letters), style)
                for style, letters in groupby((screen.buffer[row][column] for column in range(STREAM_COLUMNS)), _style)
            )
        )
        for row in rows
    )
    save("stream", arguments.removesuffix(" --duration 40"), drawn, STREAM_COLUMNS)


def _style(letter: pyte.screens.Char) -> Style:
    colour = None if letter.fg == "default" else {"brown": "yellow"}.get(letter.fg, letter.fg)
    return Style(color=colour, bold=letter.bold, underline=letter.underscore, reverse=letter.reverse)


def main() -> None:
    """Make a demo account in a folder of its own, and draw every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder))
        run(Command([alpacli(), "demo", "--yes"], env))
        for name, arguments in PICTURES.items():
            draw(name, arguments, env)
        draw_stream(env)


if __name__ == "__main__":
    main()
