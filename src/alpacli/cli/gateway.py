"""The commands of the gateway: run it. FastAPI and uvicorn load when one of them runs."""

from typing import Annotated

import typer

from alpacli.cli.failures import say
from alpacli.cli.run import Run


def serve(
    run: Run,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.", show_default=False)
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.", show_default=False)
    ] = None,
    behind_proxy: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--behind-proxy", help="A proxy in front speaks TLS and sets X-Forwarded-For.")
    ] = False,
) -> None:
    """Serve this account over HTTP and WebSocket to every program that should share it, until Ctrl-C."""
    from alpacli.gateway.app import create_app
    from alpacli.gateway.opening import open_gateway
    from alpacli.gateway.parts import Limits
    from alpacli.gateway.serving import Place, check_place
    from alpacli.gateway.serving import serve as serve_http

    place = Place(host, port, tls_cert, tls_key, behind_proxy)
    check_place(place)
    limits = Limits()
    parts = open_gateway(run.settings(), limits, warn=run.printer.notice)

    def ready(url: str) -> None:
        run.printer.write(f"{url}\n".encode())
        if not run.options.quiet:
            say(f"alpacli: the gateway answers at {url}; its API is described at {url}/docs\n")

    serve_http(create_app(parts), place, limits, ready=ready, access_log=run.options.verbose)
