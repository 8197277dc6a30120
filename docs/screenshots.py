"""Draw docs/images from the program itself: real commands, on a real terminal, on the offline exchange.

``make pictures`` runs it. Nothing in a picture is typed by hand, so a picture that no longer fits shows up as a change.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

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


def draw_dashboard(env: dict[str, str], folder: Path) -> None:
    """Keep what a browser shows of the gateway's page, when there is a browser."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.stderr.write("docs/images/dashboard.png stays as it is: chromium and chromedriver are not installed\n")
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    def say(*arguments: str) -> str:
        return subprocess.run([alpacli(), *arguments], env=env, capture_output=True, text=True, check=True).stdout

    serving = subprocess.Popen(
        [alpacli(), "serve", "--sim", "--port", "0", "--quiet"], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        options = Options()
        options.binary_location = chromium
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *(f"--user-data-dir={folder / 'chromium'}", "--window-size=1280,1000", "--hide-scrollbars"),
        ):
            options.add_argument(argument)
        browser: Any = webdriver.Chrome(options=options, service=Service(driver))
        try:
            browser.get(url)
            browser.find_element("id", "token").send_keys(
                say("serve", "token", "--scope", "read,stream,trade", "--sim", "--quiet").strip() + "\n"
            )
            wait = WebDriverWait(browser, 60)
            wait.until(lambda page: page.find_element("id", "connection").text == "live")
            for symbol in ("NVDA", "BTC/USD"):
                browser.find_element("id", "symbol").send_keys(symbol + "\n")
            say("buy", "BTC/USD", "0.1", "--sim", "--yes")
            wait.until(lambda page: "fill" in page.find_element("id", "events").text)
            wait.until(lambda page: "NVDA" in page.find_element("id", "ticks").text)
            browser.set_window_size(1280, browser.execute_script("return document.body.scrollHeight") + 160)
            browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
            browser.save_screenshot(str(IMAGES / "dashboard.png"))
        finally:
            browser.quit()
    finally:
        serving.terminate()
        serving.communicate(timeout=30)
    _shrink(IMAGES / "dashboard.png")
    sys.stderr.write("docs/images/dashboard.png\n")


def _shrink(picture: Path) -> None:
    """Keep 64 colours, which is all that the page has: a third of the bytes."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


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
        draw_dashboard(env, Path(folder))


if __name__ == "__main__":
    main()
