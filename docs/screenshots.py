"""Draw docs/images from the program itself: real commands, on a real terminal, on the offline exchange.

``make pictures`` runs it. Nothing in a picture is typed by hand, so a picture that no longer fits shows up as a change.
"""

import io
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Command, alpacli, environment, run
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

IMAGES = Path(__file__).with_name("images")
COLUMNS = 104
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
    drawn = Text.from_ansi(sample.output.decode().replace("\r\n", "\n").rstrip("\n"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (f"alpacli {arguments}", "bold")))
    console.print(drawn)
    svg = console.export_svg(title=f"alpacli {arguments}", theme=DIMMED_MONOKAI, unique_id=f"alpacli-{name}")
    text = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    (IMAGES / f"{name}.svg").write_text(text, encoding="utf-8")
    sys.stderr.write(f"docs/images/{name}.svg\n")


def main() -> None:
    """Make a demo account in a folder of its own, and draw every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder))
        run(Command([alpacli(), "demo", "--yes"], env))
        for name, arguments in PICTURES.items():
            draw(name, arguments, env)


if __name__ == "__main__":
    main()
