"""Where one server can be reached, and how to know that it is the right one."""

import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from amela.common.v1.registration_pb2 import Registration

from amela_client.errors import DiscoveryError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]+)", re.ASCII)
_LOOPBACK_V4 = re.compile(r"127(\.[0-9]{1,3}){3}", re.ASCII)


@dataclass(frozen=True)
class Trust:
    """What to show and to believe where no registration says it. All are paths of files.

    Its methods raise `DiscoveryError` if a file cannot be used.

    Parameters
    ----------
    certificate
        PEM of the certificate, or of the authority, that servers must show.
    token
        Text file with the token to send.
    client_certificate, client_key
        PEM of what the client shows to servers that ask for it (mutual TLS).
    """

    certificate: Path | None = None
    token: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def read_certificate(self) -> bytes:
        """Read the certificate; empty if there is none."""
        return _read_pem(self.certificate)

    def read_token(self) -> str:
        """Read the token; empty if there is none."""
        return read_token(self.token) if self.token else ""

    def read_client(self) -> tuple[bytes, bytes]:
        """Read the client's certificate and key; empty if there are none."""
        if (self.client_certificate is None) != (self.client_key is None):
            raise DiscoveryError("a client certificate and its key go together: give both or neither")
        return _read_pem(self.client_certificate), _read_pem(self.client_key)


@dataclass(frozen=True)
class Endpoint:
    """Where one server can be reached, and how to know that it is the right one.

    Two endpoints are equal if a connection to one serves for the other.
    """

    host: str
    port: int
    certificate: bytes = field(default=b"", repr=False)
    """PEM to trust; empty: no TLS."""
    tls_name: str = ""
    """Name to look for in the certificate instead of the host."""
    token: str = field(default="", repr=False)
    client_certificate: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    registration: Registration | None = field(default=None, compare=False, repr=False)
    """As the server announced itself; None for an address that is in no registry."""

    @property
    def name(self) -> str:
        """``HOST:PORT``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        return is_loopback(self.host)

    def heartbeat_age(self, now: float | None = None) -> float | None:
        """Seconds since the server last renewed its registration, by this host's clock; None if unknown."""
        if self.registration is None or not self.registration.HasField("heartbeat"):
            return None
        beat = self.registration.heartbeat
        return (time.time() if now is None else now) - (beat.seconds + beat.nanos / 1e9)

    def time_left(self, now: float | None = None) -> float:
        """Seconds until the server drains by itself, by this host's clock; infinite if it has not said."""
        if self.registration is None or not self.registration.HasField("drains"):
            return math.inf
        drains = self.registration.drains
        return drains.seconds + drains.nanos / 1e9 - (time.time() if now is None else now)


def parse_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises
    ------
    DiscoveryError
        If it is neither.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not _can_be_looked_up(match["host"] or ""):
        raise DiscoveryError(
            f"server {text!r} is not an address: type HOST:PORT, such as node7:50051 or [fe80::1]:50051"
        )
    port = int(match["port"])
    if not 0 < port < 65536:
        raise DiscoveryError(f"server {text!r} has port {port}: ports go from 1 to 65535")
    return match["v6"] or match["host"], port


def _can_be_looked_up(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this very host."""
    return host.lower() in {"localhost", "::1"} or _LOOPBACK_V4.fullmatch(host) is not None


def read_token(path: Path) -> str:
    """Read a token file.

    Raises
    ------
    DiscoveryError
        If it cannot be read or holds no token.
    """
    try:
        token = path.read_text("utf-8", "replace").strip()
    except OSError as error:
        raise DiscoveryError(f"token {path}: {error.strerror}; ask its owner for access") from error
    # No call could carry anything else.
    if not (token.isascii() and token.isprintable()):
        raise DiscoveryError(
            f"token {path} is not one line of printable ASCII text: copy the servers' own again, or remove"
            " theirs and restart a server, which makes a new one"
        )
    if not token:
        raise DiscoveryError(f"token {path} is empty: remove it and restart a server, which makes a new one")
    return token


def _read_pem(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DiscoveryError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise DiscoveryError(f"{path} is not a PEM file: it must hold a -----BEGIN … block")
    return content
