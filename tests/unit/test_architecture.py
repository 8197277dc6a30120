"""What loads what: light doors stay light, and the library's door shows exactly what it promises."""

import ast
import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.imports import loaded_by

import alpacli

HEAVY = (
    "pandas",
    "numpy",
    "alpaca",
    "redis",
    "pydantic",
    "typer",
    "rich",
    "requests",
    "websockets",
    "uvicorn",
    "asyncio",
)
SOURCE = Path(alpacli.__file__).parent


@pytest.mark.parametrize(
    "module", ["alpacli", "alpacli.errors", "alpacli.ports", "alpacli.settings", "alpacli.cli.entry", "alpacli.live"]
)
def test_a_module_of_the_short_way_in_or_of_the_hub_loads_no_heavy_library(module: str) -> None:
    assert not loaded_by(f"import {module}") & set(HEAVY)


def test_help_loads_neither_the_sdk_nor_pandas_nor_redis() -> None:
    loaded = loaded_by("from alpacli.cli import app")
    assert not loaded & {"pandas", "numpy", "alpaca", "redis", "websockets", "uvicorn", "plotext"}


def test_reading_an_account_does_not_load_how_times_are_written() -> None:
    assert "alpacli.domain.series" not in loaded_by("import alpacli.cli.read, alpacli.runtime, alpacli.broker.client")


def test_the_client_and_its_transport_load_neither_pandas_nor_the_trading_client() -> None:
    """alpaca.trading and alpaca.data load pandas, which costs half a second and 50 MB."""
    loaded = loaded_by("import alpacli.wire.alpaca, alpacli.broker.client")
    assert not loaded & {"pandas", "numpy", "alpaca.trading", "alpaca.data"}


def test_the_domain_loads_no_transport_and_no_pandas() -> None:
    loaded = loaded_by("import alpacli.domain.account, alpacli.domain.orders")
    assert not loaded & {"alpaca", "pandas", "requests", "redis", "typer", "rich"}


def test_only_a_running_gateway_loads_the_web_framework() -> None:
    web = {"fastapi", "starlette", "uvicorn", "prometheus_client"}
    assert not loaded_by("import alpacli.cli.gateway, alpacli.gateway.keeping, alpacli.gateway.tokens") & web
    assert not loaded_by("import alpacli.cli.read, alpacli.runtime, alpacli.broker.client") & {
        *web,
        "jwt",
        "cryptography",
    }


def test_everything_the_library_offers_can_be_imported_and_is_listed_in_order() -> None:
    assert list(alpacli.__all__) == sorted(alpacli.__all__)
    for name in alpacli.__all__:
        assert getattr(alpacli, name) is not None
    assert set(alpacli.__all__) <= set(dir(alpacli))


@pytest.mark.parametrize(
    "name",
    ["connect", "AlpacaClient", "AsyncAlpacaClient", "AlpacaAPIError", "AlpacliError", "Account", "Position", "Order"],
)
def test_the_promised_names_are_in_the_librarys_door(name: str) -> None:
    assert name in alpacli.__all__


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """And an error to type checkers: else the comment below would be one."""
    with pytest.raises(AttributeError, match="no_such_name"):
        alpacli.no_such_name  # type: ignore[attr-defined] # noqa: B018 # reading it is the test


def test_every_module_says_which_decision_it_hides() -> None:
    silent = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.read_text(encoding="utf-8").strip() and not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


LONG: dict[str, str] = {
    "gateway/relay.py": "the way of a line from source to client: every part of it runs a hundred thousand times a second",
    "streams/fleet.py": "one state machine: which machine has the connection, and what that means for saying and hearing",
    "domain/board.py": "the way of a tick into the table: one class, because a call less is a tick more",
    "sim/reading.py": "every form that past prices come in, each a few lines, and one way to be wrong for all of them",
    "settings.py": "who wins and what is refused; the cached path loads it, and a second module would cost it time",
}


def test_a_module_that_is_longer_than_a_reader_can_hold_has_a_reason() -> None:
    lengths = {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert {name for name, lines in lengths.items() if lines > 525} == set(LONG)
    assert max(lengths.values()) <= 700


def test_decoders_of_structs_are_made_while_their_module_is_imported() -> None:
    """msgspec 0.22 ends the process when two threads make the first decoders of one struct at the same moment.

    An import has a lock. Within functions, only decoders of plain types may be made.
    """
    late = [
        f"{path.relative_to(SOURCE)}:{call.lineno}"
        for path in SOURCE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for wanted in _decoded_types(call)
        if not {name.id for name in ast.walk(wanted) if isinstance(name, ast.Name)} <= set(dir(builtins))
    ]
    assert not late


def _decoded_types(call: ast.Call) -> list[ast.expr]:
    """Return what a call of msgspec decodes into, where it says so."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "Decoder":
        return call.args[:1]
    if name == "convert":
        return call.args[1:2]
    return [word.value for word in call.keywords if word.arg == "type"] if name == "decode" else []


def test_layers_hold() -> None:
    """The same contract as ``make check``, so that ``make test`` alone finds a wrong import too."""
    root = SOURCE.parents[1]
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("alpacli") == alpacli.__version__
