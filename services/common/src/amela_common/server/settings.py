"""What an operator can set, from flags, ``AMELA_…`` variables or a TOML file, in that order."""

import argparse
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from amela_common.audio import AudioLimits
from amela_common.errors import ConfigError


class _Variables(EnvSettingsSource):
    """Reads lists as PATH has them, which is easier to write in a job script than JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        return value.split(os.pathsep)


class ServerSettings(BaseSettings):
    """What every server can be told; a service adds its own."""

    model_config = SettingsConfigDict(
        env_prefix="AMELA_",
        extra="ignore",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
        use_attribute_docstrings=True,
    )

    config: Path | None = None
    """TOML file with any of these options, under their names with underscores."""
    host: str = "0.0.0.0"  # noqa: S104 - other nodes call; TLS and the token guard the port
    """Address to listen on."""
    port: int = Field(0, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and registers it."""
    advertise: str | None = None
    """Name or address that other nodes reach this one by. Default: this host's name."""
    registry: Path = Path("~/.amela/registry")
    """Folder on the shared file system where servers register and the token lies."""
    audio_root: list[Path] = Field(default_factory=lambda: [Path.cwd()])
    """Folder that audio paths must lie under; may be given several times (in the variable: separated by
    colons). Default: the working folder."""
    max_audio_seconds: float | None = Field(None, gt=0)
    """Longest stretch of audio in one request. Default: no limit."""
    max_message_bytes: int = Field(64 << 20, ge=1 << 16, lt=1 << 31)
    """Largest request or response."""
    queue: int = Field(64, ge=0)
    """Requests that may wait; one more is refused at once with a delay to try again after."""
    insecure: bool = False
    """Serve without TLS, on a loopback address only. The token is asked for all the same."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) to serve with instead of one made at start."""
    tls_key: Path | None = None
    """Key (PEM) of that certificate."""
    tls_client_ca: Path | None = None
    """Certificate authority (PEM) that callers' own certificates must come from (mutual TLS)."""
    metrics_host: str = "127.0.0.1"
    """Address for Prometheus to scrape."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port for Prometheus to scrape; 0 takes a free one and registers it."""
    heartbeat_seconds: float = Field(15.0, gt=0)
    """How often the registration is renewed."""
    drain_seconds: float = Field(100.0, ge=0)
    """How long work in flight may take to finish after SIGTERM."""
    launch: str = ""
    """Label in the registration, set by what started the server."""
    until_stdin_closes: bool = False
    """Drain when standard input ends, so that the server never outlives what started it."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines to write. DEBUG has a line for each call."""

    _config_file: ClassVar[Path | None] = None

    @field_validator("registry", "audio_root", "config", "tls_cert", "tls_key", "tls_client_ca")
    @classmethod
    def _absolute(cls, value: Path | list[Path] | None) -> Path | list[Path] | None:
        if isinstance(value, list):
            return [path.expanduser().absolute() for path in value]
        return value.expanduser().absolute() if value is not None else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.insecure and not self.is_loopback:
            raise ValueError(f"--insecure needs a loopback --host such as 127.0.0.1, not {self.host}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: give both or neither")
        for root in self.audio_root:
            if not root.is_dir():
                raise ValueError(f"--audio-root {root} is not a folder that this host can see")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach the server."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def audio_limits(self) -> AudioLimits:
        """What this server accepts as audio."""
        return AudioLimits(
            roots=tuple(str(root.resolve()) for root in self.audio_root),
            max_seconds=self.max_audio_seconds,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ask flags (which come as init arguments) first, then variables, then the file."""
        sources = [init_settings, _Variables(settings_cls)]
        if cls._config_file is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, cls._config_file))
        return tuple(sources)


SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def load_settings(
    settings_type: type[SettingsT], description: str, argv: Sequence[str] | None = None
) -> SettingsT:
    """Read the settings of a server.

    Raises
    ------
    ConfigError
        If an option has a value that it cannot have; the message names the option.
    SystemExit
        After ``--help`` (0) or an unknown flag (2).
    """
    # What flags come to before the others are read: pydantic-settings would cut folders at commas.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    early.add_argument("--config", type=Path, default=os.environ.get("AMELA_CONFIG"))
    early.add_argument("--audio-root", action="append")
    given, rest = early.parse_known_args(argv)
    config = given.config
    if config is not None and not Path(config).is_file():
        raise ConfigError(f"--config {config}: no such file")

    configured = type(
        settings_type.__name__, (settings_type,), {"_config_file": config, "__doc__": description}
    )
    flags: CliSettingsSource[object] = CliSettingsSource(
        configured, cli_parse_args=rest, formatter_class=_HelpFormatter
    )
    try:
        return configured(_cli_settings_source=flags, **vars(given))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise ConfigError("; ".join(map(_explain, error.errors()))) from error
    except (ValueError, OSError) as error:  # TOML that does not parse, a file that cannot be read
        raise ConfigError(f"--config {config}: {error}") from error


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves out defaults that are no values: the option's own words say what holds then."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return re.sub(r" \(default( factory: .*|: |: None)\)$", "", action.help or "")


def _explain(error: object) -> str:
    assert isinstance(error, dict)
    option = "--" + str(error["loc"][0]).replace("_", "-") + ": " if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{option}{message}" + (f" (got {error['input']!r})" if option else "")
