"""`srcli serve`: the page and the HTTP interface."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli import complete
from srcli.cli.boundary import print_error, write_line
from srcli.errors import InputError
from srcli.settings import Dtype

if TYPE_CHECKING:
    from srcli.serve.settings import ServerSettings


def run_page_server(
    folder: Annotated[
        Path, typer.Option("--folder", "-o", help="Where jobs and results are kept; a restart goes on with them.")
    ] = Path("srcli-jobs"),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with --token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(help="What clients must send; a random one by default.", envvar="SRCLI_TOKEN")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda\\[:N] or mps.", autocompletion=complete.complete_devices)
    ] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision.")] = "auto",
    max_memory: Annotated[str | None, typer.Option(help="What a job may take, such as 4G.")] = None,
) -> None:
    """Serve a page for people without a terminal, and jobs over HTTP. Prints its address; Ctrl-C ends it."""
    from srcli.serve.run import run_server
    from srcli.serve.settings import ServerSettings, is_loopback
    from srcli.settings import DeviceChoice, size_in_bytes

    if not is_loopback(host) and token is None:
        raise InputError(f"--host {host} lets other machines in: give --token too, a secret of your own")
    settings = ServerSettings(
        folder=folder,
        token=token or secrets.token_urlsafe(24),
        host=host,
        port=port,
        device=DeviceChoice(device=device, dtype=dtype, memory=size_in_bytes(max_memory)),
    )
    run_server(settings, partial(_announce, settings))


def _announce(settings: ServerSettings, address: str) -> None:
    """Print the address; whoever opens the server to other machines is told what that means."""
    if not settings.on_loopback:
        print_error(f"whoever reaches {settings.host} and has the token can use this machine; nothing is encrypted")
    write_line(address.encode())
