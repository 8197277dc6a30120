"""The commands of the gateway: run it, mint tokens, list and revoke them. FastAPI and uvicorn load only to run it."""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alpacli.cli.failures import say
from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import NotFound, UsageError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from rich.console import RenderableType

    from alpacli.gateway.tokens import Issuer
    from alpacli.render.text import Frame
    from alpacli.store.tokens import Minted

_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LIMITS: Final = "Limits"
_WHO: Final = "Who may"


class TokenLine(Model):
    """One token or pair: ``state`` is valid, expired or revoked; times RFC 3339, ``expires`` null for never."""

    id: str
    name: str
    kind: str
    scopes: str
    signed: bool
    issued: str | None
    expires: str | None
    state: str


class Revoked(Model):
    revoked: list[str]
    dry_run: bool | None = None


def serve(
    run: Run,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    tls_cert: Annotated[str | None, option("Certificate chain, PEM.", "--tls-cert", metavar="FILE")] = None,
    tls_key: Annotated[str | None, option("Its private key, PEM.", "--tls-key", metavar="FILE")] = None,
    behind_proxy: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--behind-proxy", help="A proxy in front speaks TLS and sets X-Forwarded-For.")
    ] = False,
    allow: Annotated[list[str] | None, option("Only these networks may connect.", metavar="CIDR", panel=_WHO)] = None,
    token_rate: Annotated[
        int,
        typer.Option(
            metavar="N", help="Requests a minute for each token; 0 is no limit.", min=0, rich_help_panel=_LIMITS
        ),
    ] = 0,
    max_connections: Annotated[
        int, typer.Option(metavar="N", help="Connections at the same time.", min=1, rich_help_panel=_LIMITS)
    ] = 1000,
    require_signing: Annotated[  # noqa: FBT002 # a flag
        bool,
        typer.Option("--require-signing", help="Trades must be signed, whatever the token.", rich_help_panel=_WHO),
    ] = False,
    issuer: Annotated[
        str | None, option("Take tokens of your own issuer: its iss claim.", metavar="NAME", panel=_WHO)
    ] = None,
    audience: Annotated[
        str, typer.Option(metavar="NAME", help="The aud claim of its tokens.", rich_help_panel=_WHO)
    ] = "alpacli",
    jwks: Annotated[str | None, option("Where its public keys are.", metavar="URL|FILE", panel=_WHO)] = None,
    log_format: Annotated[str, option("The log on stderr; json has every request.", metavar="text|json")] = "text",
) -> None:
    """Serve this account over HTTP and WebSocket to every program that should share it, until Ctrl-C.

    `alpacli serve token` mints what clients sign in with, `alpacli serve tokens` lists and revokes it, `alpacli serve hooks`
    posts order updates to URLs.
    """
    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format is {log_format!r}", "choose text or json")
    networks = [_network(text) for text in allow or ()]
    foreign = _issuer(issuer, audience, jwks)
    from alpacli.gateway.app import create_app
    from alpacli.gateway.chronicle import begin
    from alpacli.gateway.opening import open_gateway
    from alpacli.gateway.parts import Limits
    from alpacli.gateway.serving import Place, check_place
    from alpacli.gateway.serving import serve as serve_http

    as_json = log_format == "json"
    begin(as_json=as_json, requests=as_json or run.options.verbose)
    warn: Callable[[str], None] = logging.getLogger("alpacli").warning if as_json else run.printer.notice
    place = Place(host, port, tls_cert, tls_key, behind_proxy)
    check_place(place)
    limits = Limits(token_rate=token_rate, connections=max_connections)
    parts = open_gateway(run.settings(), limits, warn=warn, issuer=foreign, require_signed=require_signing)
    parts.access.refresh()  # what cannot be read is said now, not when the first client comes

    def ready(url: str) -> None:
        run.printer.write(f"{url}\n".encode())
        if not run.options.quiet:
            say(f"alpacli: the gateway answers at {url}; its API is described at {url}/docs\n")

    serve_http(create_app(parts, allowed=networks), place, limits, ready=ready)


def token(
    run: Run,
    scope: Annotated[str, typer.Option(metavar="A,B", help="read, stream, trade.")] = "read",
    expires: Annotated[str, typer.Option(metavar="TIME", help="Like 8h, 30d; or never.")] = "8h",
    name: Annotated[str, typer.Option(metavar="TEXT", help="Who it is for; shown in lists.")] = "",
    pair: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--pair", help="A key pair for the SDKs instead: key ID and secret, a line each.")
    ] = False,
    sign: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--sign", help="Its trades must be signed: one more line is the key.")
    ] = False,
) -> None:
    """Mint a token for a client of this account's gateways, and print it, and nothing else, to standard output.

    It is shown this once. It works on every gateway of the account that shares this state directory or Redis.
    """
    from alpacli.gateway.keeping import open_book, open_keys
    from alpacli.gateway.tokens import Grant, mint, mint_pair, read_scopes, signing_key
    from alpacli.ports import SystemRandomness
    from alpacli.store.tokens import Minted

    scopes, now = read_scopes(scope), run.clock.time()
    until = _until(expires, now)
    if len(name) > 100 or not name.isprintable():
        raise UsageError("the name is too long, or not printable", "give up to 100 letters")
    settings = run.settings()
    keys, book = open_keys(settings), open_book(settings, run.printer.notice)
    token_id = SystemRandomness().token()
    grant = Grant(name or f"client {token_id[:6]}", token_id, scopes, until, sign)
    entry = Minted(token_id, grant.name, tuple(sorted(scopes)), now, until, signed=sign)
    if pair:
        key_id, secret, digest = mint_pair()
        entry = entry._replace(key_id=key_id, secret_sha256=digest)
        lines = [key_id, secret]
    else:
        lines = [mint(keys, settings.fingerprint, grant, now)]
    if sign:
        lines.append(signing_key(keys, token_id))
    book.add(entry)
    keys.refresh()
    run.printer.write("".join(f"{line}\n" for line in lines).encode())
    if not run.options.quiet:
        say(
            f"alpacli: {grant.name} may {', '.join(entry.scopes)}; `alpacli serve tokens --revoke {token_id}` ends it\n"
        )


def tokens(
    run: Run,
    revoke: Annotated[
        list[str] | None, option("End this token, within a second everywhere.", metavar="ID|NAME")
    ] = None,
    foreign: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--foreign", help="What to revoke are IDs of another issuer's tokens, which no list has.")
    ] = False,
) -> None:
    """List what was minted for this account's gateways, or revoke some of it."""
    listed, ended = View(list[TokenLine], _tokens_table), View(Revoked, _revoked_table)
    run.promised(ended if revoke else listed, of_change=bool(revoke))
    from alpacli.gateway.keeping import open_book

    settings = run.settings()
    settings.require_keys()
    book = open_book(settings, run.printer.notice)
    entries = book.entries()
    now = run.clock.time()
    if not revoke:
        lines = [_line(entry, now) for entry in sorted(entries.values(), key=lambda entry: entry.issued)]
        run.show_value(listed, lines)
        return
    chosen = revoke if foreign else [token_id for word in revoke for token_id in _ids(word, entries)]
    if run.options.dry_run:
        run.show_value(ended, Revoked(revoked=chosen, dry_run=True))
        return
    for token_id in chosen:
        book.revoke(token_id, now)
    run.show_change(ended, Revoked(revoked=chosen), f"revoked: {', '.join(chosen)}")


def _ids(word: str, entries: "Mapping[str, Minted]") -> list[str]:
    """Return what a word names: an id, else every token of that name that is not revoked.

    Raises:
        NotFound: nothing.
    """
    if word in entries:
        return [word]
    named = [entry.id for entry in entries.values() if entry.name == word and entry.revoked is None]
    if not named:
        raise NotFound(
            f"nothing that stands was minted as {word}, and nothing was revoked",
            "`alpacli serve tokens` lists what there is; for the ID of another issuer's token add --foreign",
        )
    return named


def _line(entry: "Minted", now: float) -> TokenLine:
    state = "revoked" if entry.revoked is not None else "valid" if entry.lasts(now) else "expired"
    return TokenLine(
        id=entry.id,
        name=entry.name,
        kind="pair" if entry.key_id else "token",
        scopes=",".join(entry.scopes),
        signed=entry.signed,
        issued=_moment(entry.issued) if entry.issued else None,
        expires=None if entry.expires is None else _moment(entry.expires),
        state=state,
    )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")


def _until(text: str, now: float) -> float | None:
    if text == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhdw])", text)
    if found is None:
        raise UsageError(f"--expires is {text!r}", "write a number and s, m, h, d or w, like 8h; or never")
    return now + int(found[1]) * _SECONDS[found[2]]


def _network(text: str) -> "IPv4Network | IPv6Network":
    from ipaddress import ip_network

    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(f"--allow is {text!r}: {error}", "like 10.0.0.0/8 or 192.168.1.7") from None


def _issuer(name: str | None, audience: str, jwks: str | None) -> "Issuer | None":
    if (name is None) != (jwks is None):
        raise UsageError("--issuer and --jwks belong together", "give both, or neither")
    if name is None or jwks is None:
        return None
    from urllib.parse import urlsplit

    from alpacli.gateway.tokens import Issuer

    parts = urlsplit(jwks)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if "://" in jwks and not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise UsageError("--jwks is fetched over https only", "give an https URL, or a file")
    return Issuer(name, audience, jwks)


def _tokens_table(value: list[TokenLine], frame: "Frame") -> "RenderableType":
    from alpacli.domain.values import Timestamp
    from alpacli.render.grid import Column, listing
    from alpacli.render.text import moment, words

    return listing(
        value,
        [
            (Column("ID"), lambda line: words(line.id)),
            (Column("Name", 1), lambda line: words(line.name)),
            (Column("Kind", 2), lambda line: words(line.kind)),
            (Column("Scopes"), lambda line: words(line.scopes)),
            (
                Column("Expires", 1),
                lambda line: moment(Timestamp.parse(line.expires), frame) if line.expires else words("never"),
            ),
            (Column("State"), lambda line: words(line.state)),
        ],
        frame,
        empty="Nothing was minted. `alpacli serve token` does.",
    )


def _revoked_table(value: Revoked, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    what = "Would revoke" if value.dry_run else "Revoked"
    return page(Text(f"{what}: {', '.join(value.revoked)}."), frame)
