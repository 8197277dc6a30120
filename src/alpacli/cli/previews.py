"""What ``--dry-run`` prints: the exact request, without credentials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from alpacli.cli.output import View
from alpacli.domain.values import Model, from_json, to_json
from alpacli.ports import Request

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.cli.run import Run
    from alpacli.render.text import Frame


class DryRun(Model):
    """A request that was not sent. Creating, changing and deleting a watchlist costs nothing but one request."""

    dry_run: bool
    method: str
    url: str
    body: Any = None


def show_request(run: "Run", request: Request, base_url: str) -> None:
    """Print the request as a person or a program wants it."""
    run.show_value(one(), _of(request, base_url))


def show_requests(run: "Run", requests: Sequence[Request], base_url: str) -> None:
    """Print several requests, as one list."""
    run.show_value(several(), [_of(request, base_url) for request in requests])


def one() -> View:
    """Return how a request is shown that was not sent."""
    return View(DryRun, _table)


def several() -> View:
    return View(list[DryRun], _tables)


def _of(request: Request, base_url: str) -> DryRun:
    query = "?" + urlencode(request.query) if request.query else ""
    body = from_json(request.body) if request.body else None
    return DryRun(dry_run=True, method=request.method, url=f"{base_url}{request.path}{query}", body=body)


def _tables(value: list[DryRun], frame: "Frame") -> "RenderableType":
    from rich.console import Group

    return Group(*(_table(item, frame) for item in value))


def _table(value: DryRun, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import facts, page

    body = [("Body", Text(to_json(value.body).decode()))] if value.body is not None else []
    pairs = [("Not sent", Text(f"{value.method} {value.url}")), *body, ("Cost", Text("one request"))]
    return page(facts(pairs), frame)
