"""The documents keep up with the program: every variable is explained, every link leads somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alpacli import settings
from alpacli.cli.topics import TOPICS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
VARIABLES = sorted(
    set(re.findall(r'"((?:ALPACA|ALPACLI|APCA|REDIS)_[A-Z_]+)"', Path(settings.__file__).read_text(encoding="utf-8")))
)


def test_there_are_variables_and_documents_to_check() -> None:
    assert len(VARIABLES) >= 16
    assert len(DOCUMENTS) >= 10


@pytest.mark.parametrize("document", [".env.example", "src/alpacli/cli/topics.py"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_that_is_read_is_explained(document: str, variable: str) -> None:
    assert re.search(rf"\b{variable}\b", (ROOT / document).read_text(encoding="utf-8"))


def test_the_example_environment_changes_nothing_when_it_is_copied_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    env = {"HOME": str(tmp_path)}
    assert settings.load(env=env, cwd=str(tmp_path)) == settings.load(env=env)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_within_the_project_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    made = {f"{name}.md" for name in (*TOPICS, "commands")}  # pages that only the site has
    missing = [
        link
        for link in links
        if "://" not in link and Path(link).name not in made and not (document.parent / link).exists()
    ]
    assert missing == []


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {name for page in DOCUMENTS for name in re.findall(r"images/([\w.-]+)", page.read_text(encoding="utf-8"))}
    assert {path.name for path in (ROOT / "docs" / "images").iterdir()} == shown


def test_every_page_is_reached_from_the_readme() -> None:
    reached, unread = set(), [ROOT / "README.md"]
    while unread:
        page = unread.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8")):
            found = (page.parent / link).resolve()
            if "://" not in link and found.exists() and found not in reached:
                unread.append(found)
    assert [str(page) for page in DOCUMENTS if page not in reached] == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "adr"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in listed] == []


def _shown_sessions() -> list[tuple[str, str]]:
    """Return the commands of the README's terminal sessions, without what they are piped into, and what they print."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = []
    for session in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in session.split("$ alpacli ")[1:]:
            command, _, printed = part.partition("\n")
            found.append((command.partition(" | ")[0], printed))
    return found


def test_the_commands_that_the_readme_shows_run_in_their_order(tmp_path: Path) -> None:
    alpacli = Path(sys.executable).with_name("alpacli")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    assert len(_shown_sessions()) >= 8
    for command, printed in _shown_sessions():
        arguments = [str(alpacli), *shlex.split(command)]
        done = subprocess.run(arguments, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (command, done.returncode) == (command, 0), done.stderr
        assert [line for line in done.stderr.splitlines() if not line.startswith("alpacli: wrote ")] == []
        assert bool(done.stdout) == bool(printed)
        if "\t" in printed:
            assert done.stdout.splitlines()[0].split("\t")[0] == printed.split("\t")[0]
