"""Where servers are: a registry folder on the shared file system, or addresses that the user typed."""

import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amela.common.v1.registration_pb2 import Registration
from google.protobuf.json_format import Parse, ParseError

from amela_client.cluster.site import load_site, registry_folder
from amela_client.endpoint import Endpoint, Trust, is_loopback, parse_address, read_token
from amela_client.errors import DiscoveryError

_LARGEST_REGISTRATION = 1 << 20


@dataclass(frozen=True)
class Listing:
    """What one look found."""

    endpoints: tuple[Endpoint, ...] = ()
    problems: tuple[str, ...] = ()
    """Registrations that could not be used, and why."""


def default_registry() -> Path:
    """Folder where servers register: ``AMELA_REGISTRY``, else the site's, else ``~/.amela/registry``.

    Raises
    ------
    SetupError
        If there is a site file that cannot be read.
    """
    return registry_folder(load_site())


class Registry:
    """A folder in which servers announce themselves.

    Parameters
    ----------
    folder
        It need not exist yet: then it holds no servers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()

    def read(self, trust: Trust) -> Listing:
        """Read every registration, the newest one where two name the same address.

        Raises
        ------
        DiscoveryError
            If the folder is no folder, is not for this user to read, or can be written by others: whoever can
            write there could lead calls, and the token with them, to a server of their own.
        """
        status = self._check()
        if status is None:
            return Listing()
        try:
            token = self._token(trust)
            files = self._files()
        except OSError as error:
            raise DiscoveryError(
                f"registry {self.folder} cannot be read ({error.strerror}): {_whom_to_ask(status)},"
                " or name another with --registry"
            ) from error
        client = trust.read_client()
        endpoints: dict[tuple[str, int], Endpoint] = {}
        problems = []
        for path in files:
            try:
                registration = _read_registration(path)
            except FileNotFoundError:
                continue  # A server that ended between the listing and the reading.
            except (OSError, ValueError) as error:
                problems.append(f"{path}: skipped, {error}")
                continue
            endpoint = Endpoint(
                registration.host,
                registration.port,
                registration.certificate.encode(),
                registration.tls_name,
                token,
                *client,
                registration=registration,
            )
            known = endpoints.get((endpoint.host, endpoint.port))
            if known is None or _started(known) < _started(endpoint):
                endpoints[endpoint.host, endpoint.port] = endpoint
        return Listing(tuple(endpoints.values()), tuple(problems))

    def _check(self) -> os.stat_result | None:
        try:
            status = self.folder.stat()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise DiscoveryError(
                f"registry {self.folder} cannot be reached: a folder above it is closed to you; ask its"
                " owner, or name another with --registry"
            ) from error
        except OSError as error:
            raise DiscoveryError(f"registry {self.folder}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise DiscoveryError(f"registry {self.folder} is not a folder: name the one that servers use")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise DiscoveryError(
                f"registry {self.folder} can be written by others, who could lead your calls to servers"
                f" of their own; run: chmod go-w {self.folder}"
            )
        return status

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix == ".json" and path.is_file())

    def _token(self, trust: Trust) -> str:
        path = self.folder / "token"
        if trust.token or not path.exists():
            return trust.read_token()
        return read_token(path)


class Discovery:
    """Finds servers, as often as it is asked: they come and go.

    Parameters
    ----------
    registry
        Registry folder. Default: `default_registry`.
    servers
        Addresses ``HOST:PORT`` to use instead of everything in the registry. Certificate and token
        still come from the registry for those that are registered there.
    trust
        What to use for addresses that are not.

    Raises
    ------
    DiscoveryError
        If an address cannot be one.
    """

    def __init__(
        self, registry: Path | None = None, servers: Sequence[str] = (), trust: Trust | None = None
    ) -> None:
        self.registry = Registry(registry or default_registry())
        self._addresses = [parse_address(text) for text in servers]
        self._trust = trust or Trust()

    def look(self, service: str | None = None) -> Listing:
        """Find the servers of a service, or all. Reads files, so call it from a thread.

        An address that no registration describes is listed whatever the service: only the server knows.

        Raises
        ------
        DiscoveryError
            If the registry or a file of `Trust` cannot be used, or if an address is not registered and
            nothing says how to know its server.
        """
        listing = self.registry.read(self._trust)
        if self._addresses:
            found = [self._find(host, port, listing) for host, port in self._addresses]
            listing = Listing(tuple(dict.fromkeys(found)), listing.problems)
        endpoints = []
        problems = list(listing.problems)
        for endpoint in listing.endpoints:
            registration = endpoint.registration
            if registration and service and registration.service != service:
                continue
            if not endpoint.certificate and not endpoint.is_loopback:
                problems.append(
                    f"{endpoint.name}: skipped, its registration has no certificate, and without TLS"
                    " only servers on loopback are called"
                )
                continue
            endpoints.append(endpoint)
        return Listing(tuple(endpoints), tuple(problems))

    def describe(self) -> str:
        """Say where it looks, for messages."""
        if self._addresses:
            names = ", ".join(Endpoint(host, port).name for host, port in self._addresses)
            return f"the servers given: {names}"
        problem = ""
        try:
            self.registry.folder.stat()
        except FileNotFoundError:
            problem = ", which does not exist"
        except OSError as error:
            problem = f", which cannot be read: {error.strerror}"
        return f"the registry {self.registry.folder}{problem}"

    def _find(self, host: str, port: int, listing: Listing) -> Endpoint:
        candidates = [endpoint for endpoint in listing.endpoints if endpoint.port == port]
        for endpoint in candidates:
            if _same_host(host, endpoint.host):
                return endpoint
        trust = self._trust
        endpoint = Endpoint(
            host, port, trust.read_certificate(), "", trust.read_token(), *trust.read_client()
        )
        if not endpoint.certificate and not endpoint.is_loopback:
            raise DiscoveryError(
                f"server {endpoint.name} is not in the registry {self.registry.folder}, so nothing says which"
                " certificate it must show: name its registry with --registry, or give --certificate FILE"
                " and --token FILE"
            )
        return endpoint


def _read_registration(path: Path) -> Registration:
    with path.open("rb") as file:
        content = file.read(_LARGEST_REGISTRATION)
    try:
        # A newer server may say more than this client knows of.
        registration = Parse(content, Registration(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no registration ({error}); remove it if no server wrote it") from error
    if not registration.host or not 0 < registration.port < 65536 or not registration.service:
        raise ValueError("it lacks a service, a host or a port; remove it if no server wrote it")
    return registration


def _whom_to_ask(registry: os.stat_result) -> str:
    owner = _name(pwd.getpwuid, registry.st_uid)
    if registry.st_mode & stat.S_IRGRP:
        group = _name(grp.getgrgid, registry.st_gid)
        return f"it is for the group {group} of {owner}'s; ask to be added to it"
    return f"it is for {owner} alone; ask {owner} to open it to a group that you are in"


def _name(database: Callable[[int], tuple[Any, ...]], number: int) -> str:
    try:
        return str(database(number)[0])
    except KeyError:
        return str(number)


def _started(endpoint: Endpoint) -> tuple[int, int]:
    assert endpoint.registration is not None
    return endpoint.registration.started.seconds, endpoint.registration.started.nanos


def _same_host(typed: str, registered: str) -> bool:
    if typed.lower() == registered.lower():
        return True
    own = {socket.gethostname().lower(), socket.getfqdn().lower()}
    if all(is_loopback(host) or host.lower() in own for host in (typed, registered)):
        return True
    return bool(_addresses_of(typed) & _addresses_of(registered))


def _addresses_of(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
