import json
import math
import os
import socket
from pathlib import Path

import pytest
from amela_client.discovery import Discovery, Registry, default_registry
from amela_client.endpoint import Endpoint, Trust, parse_address
from amela_client.errors import DiscoveryError

ASR = "amela.asr.v1.AsrService"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir(mode=0o700)
    (folder / "token").write_text("s3cret\n")
    return folder


def register(folder: Path, name: str = "asr-1", **fields: object) -> Path:
    registration = {
        "id": name,
        "service": ASR,
        "host": "node7",
        "port": 50051,
        "certificate": PEM,
        "tlsName": f"{name}.amela",
        "started": "2025-01-01T10:00:00Z",
        "heartbeat": "2025-01-01T12:00:00Z",
        **fields,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(registration))
    return path


def test_a_registered_server_comes_with_its_certificate_and_the_token(folder: Path) -> None:
    register(folder)
    [endpoint] = Registry(folder).read(Trust()).endpoints
    assert (endpoint.name, endpoint.certificate, endpoint.tls_name, endpoint.token) == (
        "node7:50051",
        PEM.encode(),
        "asr-1.amela",
        "s3cret",
    )


def test_secrets_stay_out_of_what_is_printed(folder: Path) -> None:
    register(folder)
    [endpoint] = Registry(folder).read(Trust()).endpoints
    assert "s3cret" not in repr(endpoint)


def test_a_renewed_heartbeat_does_not_make_another_endpoint(folder: Path) -> None:
    register(folder)
    before = Registry(folder).read(Trust()).endpoints
    register(folder, heartbeat="2025-01-01T12:00:15Z")
    assert Registry(folder).read(Trust()).endpoints == before


def test_a_restart_on_the_same_port_makes_another_endpoint(folder: Path) -> None:
    register(folder)
    before = Registry(folder).read(Trust()).endpoints
    register(folder, certificate=PEM.replace("MIIB", "MIIC"))
    assert Registry(folder).read(Trust()).endpoints != before


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_registry_has_no_servers(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "registry").mkdir(mode=0o700)
    listing = Registry(tmp_path / "registry").read(Trust())
    assert (listing.endpoints, listing.problems) == ((), ())


@pytest.mark.parametrize("mode", [0o702, 0o720, 0o777, 0o1777])
def test_a_registry_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    register(folder)
    folder.chmod(mode)
    with pytest.raises(DiscoveryError, match="chmod go-w"):
        Registry(folder).read(Trust())


def test_a_registry_that_a_group_can_read_is_fine(folder: Path) -> None:
    register(folder)
    folder.chmod(0o750)
    assert len(Registry(folder).read(Trust()).endpoints) == 1


def test_a_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    with pytest.raises(DiscoveryError, match="not a folder"):
        Registry(tmp_path / "registry").read(Trust())


def test_an_unreadable_registry_is_named(users_folder: Path) -> None:
    folder = users_folder / "registry"
    folder.mkdir(mode=0o300)
    with pytest.raises(DiscoveryError, match=r"cannot be read .* is for .* alone; ask"):
        Registry(folder).read(Trust())


def test_a_registry_that_cannot_be_reached_any_more_is_described(users_folder: Path) -> None:
    folder = users_folder / "closed" / "registry"
    folder.mkdir(parents=True)
    folder.parent.chmod(0)
    assert Discovery(folder).describe() == f"the registry {folder}, which cannot be read: Permission denied"
    folder.parent.chmod(0o700)


def test_a_registry_whose_files_cannot_be_reached_is_named(users_folder: Path) -> None:
    folder = users_folder / "registry"
    folder.mkdir(mode=0o640)
    with pytest.raises(DiscoveryError, match=r"cannot be read .* is for the group .* ask to be added to it"):
        Registry(folder).read(Trust())


BROKEN = {
    "half-written": '{"id": "asr-2", "service": "amela.asr',
    "empty": "",
    "not an object": "[1, 2]",
    "not JSON": "\x00\x01",
    "wrong type": '{"port": "many"}',
    "deep": "[" * 100_000,
    "no service": '{"host": "node7", "port": 5}',
    "no host": f'{{"service": "{ASR}", "port": 5}}',
    "no port": f'{{"service": "{ASR}", "host": "node7"}}',
    "port 70000": f'{{"service": "{ASR}", "host": "node7", "port": 70000}}',
    "negative port": f'{{"service": "{ASR}", "host": "node7", "port": -1}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_registration_is_skipped_and_named(folder: Path, content: str) -> None:
    register(folder)
    (folder / "broken.json").write_text(content)
    listing = Registry(folder).read(Trust())
    assert [endpoint.name for endpoint in listing.endpoints] == ["node7:50051"]
    assert len(listing.problems) == 1
    assert str(folder / "broken.json") in listing.problems[0]


def test_a_registration_that_is_not_utf8_is_skipped(folder: Path) -> None:
    (folder / "broken.json").write_bytes(b'{"id": "\xff\xfe"}')
    assert len(Registry(folder).read(Trust()).problems) == 1


def test_what_a_newer_server_says_besides_is_ignored(folder: Path) -> None:
    register(folder, shinyNewField={"a": [1]})
    assert len(Registry(folder).read(Trust()).endpoints) == 1


def test_files_that_are_no_registrations_are_passed_over(folder: Path) -> None:
    register(folder)
    (folder / ".asr-2.json.new").write_text("{")
    (folder / "notes.txt").write_text("hello")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    listing = Registry(folder).read(Trust())
    assert (len(listing.endpoints), listing.problems) == (1, ())


def test_of_two_registrations_for_one_address_the_newer_start_counts(folder: Path) -> None:
    register(folder, "old", started="2025-01-01T10:00:00Z")
    register(folder, "new", started="2025-01-02T10:00:00Z")
    register(folder, "older", started="2024-01-01T10:00:00Z")
    assert [endpoint.tls_name for endpoint in Registry(folder).read(Trust()).endpoints] == ["new.amela"]


def test_a_heartbeats_age_is_told(folder: Path) -> None:
    register(folder, heartbeat="1970-01-01T00:01:40.5Z")
    [endpoint] = Registry(folder).read(Trust()).endpoints
    assert endpoint.heartbeat_age(now=160.5) == 60.0


def test_the_time_until_a_server_drains_is_told(folder: Path) -> None:
    register(folder, drains="1970-01-01T00:01:40.5Z")
    register(folder, "asr-2", port=50052)
    leaving, staying = Registry(folder).read(Trust()).endpoints
    assert leaving.time_left(now=40.0) == 60.5
    assert leaving.time_left(now=160.5) == -60.0
    assert staying.time_left() == Endpoint("node7", 1).time_left() == math.inf


def test_an_address_has_no_heartbeat() -> None:
    assert Endpoint("node7", 1).heartbeat_age() is None


def test_without_a_token_file_none_is_sent(folder: Path) -> None:
    register(folder)
    (folder / "token").unlink()
    assert Registry(folder).read(Trust()).endpoints[0].token == ""


@pytest.mark.parametrize(
    "content", ["", " \n", "töken", "one\ntwo", "one\r\ntwo\n", "t\0ken", "t\tken", "t\x7fken", "\ufefftoken"]
)
def test_a_token_that_is_none_is_named(folder: Path, content: str) -> None:
    (folder / "token").write_text(content)
    with pytest.raises(DiscoveryError, match=f"token {folder}/token is .* restart a server"):
        Registry(folder).read(Trust())


def test_only_servers_of_the_service_asked_for_are_listed(folder: Path) -> None:
    register(folder)
    register(folder, "vad-1", service="amela.vad.v1.VadService", port=50052)
    assert [endpoint.port for endpoint in Discovery(folder).look(ASR).endpoints] == [50051]
    assert len(Discovery(folder).look().endpoints) == 2


def test_a_server_without_tls_is_called_on_loopback_only(folder: Path) -> None:
    register(folder, "remote", certificate="", host="node7")
    register(folder, "local", certificate="", host="127.0.0.1")
    listing = Discovery(folder).look(ASR)
    assert [endpoint.host for endpoint in listing.endpoints] == ["127.0.0.1"]
    assert "node7:50051" in listing.problems[0]


def test_an_address_takes_what_its_registration_says(folder: Path) -> None:
    register(folder)
    register(folder, "asr-2", port=50052)
    [endpoint] = Discovery(folder, ["NODE7:50052"]).look(ASR).endpoints
    assert (endpoint.tls_name, endpoint.token) == ("asr-2.amela", "s3cret")


def test_localhost_is_found_under_this_hosts_name(folder: Path) -> None:
    register(folder, host=socket.gethostname())
    [endpoint] = Discovery(folder, ["localhost:50051"]).look(ASR).endpoints
    assert endpoint.tls_name == "asr-1.amela"


def test_two_names_of_one_server_are_one_endpoint(folder: Path) -> None:
    register(folder, host="127.0.0.1")
    assert len(Discovery(folder, ["localhost:50051", "127.0.0.1:50051"]).look(ASR).endpoints) == 1


def test_another_port_on_the_same_host_is_another_server(folder: Path) -> None:
    register(folder, host="127.0.0.1")
    [endpoint] = Discovery(folder, ["127.0.0.1:50052"]).look(ASR).endpoints
    assert (endpoint.registration, endpoint.certificate) == (None, b"")


@pytest.mark.parametrize("address", ["localhost:50051", "127.0.0.1:50051", "127.8.9.1:50051", "[::1]:50051"])
def test_an_unregistered_address_on_loopback_needs_nothing(tmp_path: Path, address: str) -> None:
    [endpoint] = Discovery(tmp_path / "none", [address]).look(ASR).endpoints
    assert (endpoint.certificate, endpoint.token) == (b"", "")


def test_an_unregistered_address_elsewhere_needs_a_certificate(folder: Path) -> None:
    with pytest.raises(DiscoveryError, match=r"node9:50051 is not in the registry .*--certificate"):
        Discovery(folder, ["node9:50051"]).look(ASR)


def test_an_unregistered_address_takes_the_files_given(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    (tmp_path / "token").write_text("t0ken")
    trust = Trust(certificate=tmp_path / "ca.pem", token=tmp_path / "token")
    [endpoint] = Discovery(tmp_path / "none", ["node9:50051"], trust).look(ASR).endpoints
    assert (endpoint.certificate, endpoint.token, endpoint.tls_name) == (PEM.encode(), "t0ken", "")


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        (Trust(certificate=Path("/nowhere/ca.pem")), "/nowhere/ca.pem"),
        (Trust(certificate=Path("/dev/null")), "not a PEM file"),
        (Trust(token=Path("/nowhere/token")), "/nowhere/token"),
        (Trust(client_key=Path("/nowhere/key.pem")), "both or neither"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, trust: Trust, message: str) -> None:
    with pytest.raises(DiscoveryError, match=message):
        Discovery(tmp_path, ["127.0.0.1:50051"], trust).look(ASR)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("node7:50051", ("node7", 50051)),
        ("node7.cluster.example:1", ("node7.cluster.example", 1)),
        ("10.0.0.7:65535", ("10.0.0.7", 65535)),
        ("[::1]:50051", ("::1", 50051)),
        ("[fe80::1]:50051", ("fe80::1", 50051)),
    ],
)
def test_addresses_are_taken_apart(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert Endpoint(*address).name == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "node7",
        ":50051",
        "node7:",
        "node7:port",
        "node7:0",
        "node7:65536",
        "node7:-1",
        "node7:٥",
        "node7:5:6",
        " node7:50051",
        "node7 :50051",
        "node7:50051/",
        "http://node7:50051",
        "::1:50051",
        "[::1]",
        "[node7]:5",
        "caf\udce9:50051",
        "node7..example:50051",
    ],
)
def test_what_is_no_address_is_quoted(text: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


def test_a_bad_address_is_refused_before_anything_is_called(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError, match="node7"):
        Discovery(tmp_path, ["node7"])


def test_the_variable_names_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMELA_REGISTRY", str(tmp_path))
    assert default_registry() == tmp_path
    monkeypatch.setenv("AMELA_REGISTRY", "")
    monkeypatch.setenv("HOME", "/home/ana")
    assert default_registry() == Path("/home/ana/.amela/registry")


def test_it_says_where_it_looks(tmp_path: Path) -> None:
    assert "does not exist" in Discovery(tmp_path / "none").describe()
    assert str(tmp_path) in Discovery(tmp_path).describe()
    assert "[::1]:50051" in Discovery(tmp_path, ["[::1]:50051"]).describe()
