"""Settings of a server: where it listens, where it stores jobs, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from srcli.errors import InputError, check_range
from srcli.files import is_dir, path_exists
from srcli.imaging.printable import printable
from srcli.settings import DeviceChoice

MIB = 1 << 20
LEAST_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits for clients. Sizes are in bytes, times in seconds."""

    body: int = 512 * MIB
    pixels: int = 100_000_000
    jobs: int = 500
    connections: int = 64
    silence: float = 30.0  # between two pieces of a body
    sending: float = 1800.0  # for a whole body
    headers: float = 20.0  # for the head of a request
    reading: float = 120.0  # for decoding one picture


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of one server."""

    folder: Path
    token: str
    host: str = "127.0.0.1"
    port: int = 8765
    device: DeviceChoice = field(default_factory=DeviceChoice)
    limits: ServerLimits = field(default_factory=ServerLimits)

    def __post_init__(self) -> None:
        _check_host(self.host)
        check_range("--port", self.port, 0, 65535)
        if not all("!" <= c <= "~" and c not in '",;\\\\' for c in self.token):
            raise InputError("--token must be letters, digits and simple punctuation: it is sent in headers")
        if len(self.token) < LEAST_TOKEN:
            raise InputError(f"--token is too short: give {LEAST_TOKEN} characters or more")
        if path_exists(self.folder) and not is_dir(self.folder):
            raise InputError(f"--folder {printable(self.folder)} is a file: name a folder for jobs and results")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def _check_host(host: str) -> None:
    """Refuse what cannot be a name, which sockets answer with errors of several kinds. Raises InputError."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise InputError(f"--host {printable(host)} is not a name or an address: give another") from error


def is_loopback(host: str) -> bool:
    """Whether a name or address stands for this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
