"""What a server shows its callers: a certificate made at start, or its operator's."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from amela_common.errors import ConfigError
from amela_common.server.settings import ServerSettings


@dataclass(frozen=True)
class ServerIdentity:
    """What a server shows its callers. `certificate` is empty without TLS."""

    certificate: str
    tls_name: str
    credentials: grpc.ServerCredentials | None


def make_identity(settings: ServerSettings, server_id: str, advertised: str) -> ServerIdentity:
    """Make the certificate of this start, or take the operator's.

    Raises
    ------
    ConfigError
        If the operator's certificate or key cannot be read or do not belong together.
    """
    if settings.insecure:
        return ServerIdentity("", "", None)
    if settings.tls_cert and settings.tls_key:
        certificate, key = _read(settings.tls_cert), _read(settings.tls_key)
        _check_pair(certificate, key, settings)
        name = advertised
    else:
        name = f"{server_id}.amela"
        certificate, key = _self_signed(name)
    client_ca = _read(settings.tls_client_ca) if settings.tls_client_ca else None
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )
    return ServerIdentity(certificate.decode(), name, credentials)


def _self_signed(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "AMELA server")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of cluster nodes differ, and no allocation lasts a year.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=366))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _check_pair(certificate: bytes, key: bytes, settings: ServerSettings) -> None:
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}") from error
    if private.public_key() != public:
        raise ConfigError(f"--tls-key {settings.tls_key} is not the key of --tls-cert {settings.tls_cert}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
