"""Build the documentation into a site: build/site, from what is written once elsewhere.

The start page is the README, the reference is what ``alpacli help`` and ``alpacli commands`` say, the rest are the Markdown
files of this folder. Zensical draws it, strictly: a link that leads nowhere ends the build. No page may ask another host
for anything, so the site works from a disk, behind a firewall, and tells nobody who reads it.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from alpacli.cli.topics import TOPICS
from alpacli.cli.tree import Command, Parameter, load

DOCS: Final = Path(__file__).parent
ROOT: Final = DOCS.parent
BUILD: Final = ROOT / "build"
PAGES: Final = BUILD / "pages"
SITE: Final = BUILD / "site"
REPOSITORY_FILES: Final = (".env.example", "LICENSE", "deploy")

CONFIG: Final = """\
[project]
site_name = "alpacli"
site_description = "The command line and client library for Alpaca paper trading"
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = {nav}

[project.theme]
font = false
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
"""


def main() -> None:
    """Write the pages, draw the site, and look at what it asks for."""
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    PAGES.mkdir(parents=True)
    write_pages()
    (BUILD / "zensical.toml").write_text(CONFIG.format(nav=_toml(navigation())), encoding="utf-8")
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [zensical, "build", "--clean", "--strict", "--config-file", "zensical.toml"],
        cwd=BUILD,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or re.search(r"\b(warning|error)s?\b", done.stdout + done.stderr, re.IGNORECASE):
        sys.exit(f"the site was not built\n{done.stdout}{done.stderr}")
    foreign = [
        f"{page.relative_to(SITE)}: {address}" for page in sorted(SITE.rglob("*.html")) for address in asks(page)
    ]
    if foreign:
        sys.exit("the site asks other hosts: " + ", ".join(foreign))
    sys.stdout.write(f"{len(list(SITE.rglob('*.html')))} pages in build/site\n")


def write_pages() -> None:
    """Bring all pages together under ``PAGES``, links between them as they are there."""
    for source in sorted(DOCS.rglob("*")):
        place = PAGES / source.relative_to(DOCS)
        if source.suffix == ".md":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(_without_root(source.read_text(encoding="utf-8")), encoding="utf-8")
        elif source.parent == DOCS / "images":
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    for name, page in (
        ("README.md", "index.md"),
        ("CHANGELOG.md", "changelog.md"),
        ("CONTRIBUTING.md", "contributing.md"),
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        (PAGES / page).write_text(_without_root(text.replace("](docs/", "](")), encoding="utf-8")
    for name, topic in TOPICS.items():
        title = topic.title[0].upper() + topic.title[1:]
        text = f"# {title}\n\nAlso: `alpacli help {name}`.\n\n```text\n{topic.text}```\n"
        (PAGES / f"{name}.md").write_text(text, encoding="utf-8")
    (PAGES / "commands.md").write_text("# Commands\n\n" + "".join(_commands(load())), encoding="utf-8")


def _without_root(text: str) -> str:
    """Turn links to files beside the documentation into what the site has of them."""
    text = re.sub(r"\]\((?:\.\./)*(?:README\.md)\)", "](index.md)", text)
    text = text.replace("](CHANGELOG.md)", "](changelog.md)").replace("](CONTRIBUTING.md)", "](contributing.md)")
    names = "|".join(map(re.escape, REPOSITORY_FILES))
    return re.sub(rf"\[([^\]]*)\]\((?:\.\./)*(?:{names})[^)]*\)", r"\1", text)


def _commands(command: Command) -> list[str]:
    if command.commands:
        return [part for inner in command.commands for part in _commands(inner)]
    rows = "".join(f"| {_shown(parameter)} | {_cell(parameter.help)} |\n" for parameter in command.parameters)
    table = f"\n| | |\n| --- | --- |\n{rows}" if rows else ""
    return [f"## {command.name}\n\n{command.help}\n\n{_cell(command.about)}\n{table}\n"]


def _shown(parameter: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.names)
    return f"{names} {_cell(parameter.metavar)}" if parameter.is_option and parameter.metavar else names


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_\[\]{}])", r"\\\1", text) if "`" not in text else text.replace("|", "\\|")


def navigation() -> list[dict[str, object]]:
    """Return the order of the pages; what is not named here is put where its folder is, so nothing is lost."""
    tasks = ["trading", "streaming", "history", "offline", "python", "gateway", "webhooks", "configuration", "measured"]
    pages = [name for name in tasks if (PAGES / f"{name}.md").exists()]
    known = {*tasks, *TOPICS, "index", "commands", "changelog", "contributing", "architecture"}
    pages += [page.stem for page in sorted(PAGES.glob("*.md")) if page.stem not in known]
    return [
        {"Start": "index.md"},
        {"Recipes": _folder("recipes")},
        {"Tasks": [f"{name}.md" for name in pages]},
        {"Reference": [f"{name}.md" for name in ("commands", *TOPICS)]},
        {"How it works": ["architecture.md", "contributing.md", "changelog.md"]},
        {"Decisions": _folder("adr")},
    ]


def _folder(name: str) -> list[str]:
    pages = sorted((PAGES / name).glob("*.md"), key=lambda page: (page.stem != "README", page.name))
    return [f"{name}/{page.name}" for page in pages]


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {_toml(inner)}' for key, inner in value.items()) + " }"
    return f'"{value}"'


class _Asked(HTMLParser):
    """Collects what a browser would fetch from elsewhere by itself; links that a reader follows are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        fetched = values.get("src") if tag != "link" else values.get("href")
        if tag == "link" and values.get("rel") in ("canonical", "alternate", "prev", "next"):
            return
        if fetched and re.match(r"(https?:)?//", fetched):
            self.addresses.append(fetched)


def asks(page: Path) -> list[str]:
    """Return what a page fetches from other hosts."""
    reader = _Asked()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.addresses


if __name__ == "__main__":
    main()
