"""The registry folder: whose it is, who may read what lies in it, and the token of those who may call."""

import grp
import os
import secrets
import stat
from pathlib import Path

from amela_common.errors import ConfigError

TOKEN_FILE = "token"  # noqa: S105 - the name of the file, not a token


class RegistryFolder:
    """The folder in which servers register, which must be their user's own.

    Its mode says who may call them: with 0700 its owner alone, with 0750 or 2750 its group as well. The
    files in it go by that, and are never anybody else's to read, whatever the folder's mode.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> str:
        """Make the folder and its token if they are not there yet, and return the token.

        A token that was made before the folder was opened to its group is opened as well.

        Raises
        ------
        ConfigError
            If the folder cannot be made or written, if somebody else could write to it or to the ``~/.amela``
            that it lies in, or if it is for a group that its owner cannot give files to.
        """
        path = self.path / TOKEN_FILE
        try:
            _refuse_open_home(self.path)
            _make_folder(self.path, 0o700)
            _refuse_strangers(self.path)
            if not path.exists():
                self._make_token(path)
            _refuse_strangers(path)
            with path.open(encoding="ascii") as file:
                if os.fstat(file.fileno()).st_uid == os.geteuid():
                    self._share(file.fileno())
                token = file.read().strip()
        except OSError as error:
            why = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
            raise ConfigError(
                f"--registry {self.path}: {why}; or name a folder that you can write to"
            ) from error
        except UnicodeDecodeError:
            token = ""
        if not token:
            raise ConfigError(
                f"--registry {self.path}: {TOKEN_FILE} holds no token; remove it, a new one is made"
            )
        return token

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all, in place of one that there is.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        self._create(f".{name}.new", text, os.O_TRUNC).replace(self.path / name)

    def _make_token(self, path: Path) -> None:
        # Written aside and linked into place, so that of several servers that start at once one
        # token wins and nobody reads half of it.
        name = f".{TOKEN_FILE}.{secrets.token_hex(8)}"
        aside = self._create(name, secrets.token_urlsafe(32) + "\n", os.O_EXCL)
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            pass
        finally:
            aside.unlink()

    def _create(self, name: str, text: str, flags: int) -> Path:
        path = self.path / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                self._share(descriptor)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def _share(self, descriptor: int) -> None:
        """Let those read a file who may read the folder: its group or nobody else."""
        folder, file = self.path.stat(), os.fstat(descriptor)
        mode = 0o640 if folder.st_mode & stat.S_IRGRP else 0o600
        if mode == 0o640 and file.st_gid != folder.st_gid:
            try:
                os.fchown(descriptor, -1, folder.st_gid)
            except PermissionError as error:
                raise PermissionError(
                    error.errno,
                    f"it is shared with the group {_group_name(folder.st_gid)}, which you are not in:"
                    f" ask to be added to it, or run: chmod g-rwx {self.path}",
                ) from error
        if stat.S_IMODE(file.st_mode) != mode:
            os.fchmod(descriptor, mode)


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder if it is not there, and those above it, which nobody else can write to either."""
    try:
        folder.mkdir(mode, exist_ok=True)
    except FileNotFoundError:
        # Who can write there, whatever the umask allows, could put another folder in this one's place.
        _make_folder(folder.parent, 0o755)
        folder.mkdir(mode, exist_ok=True)


def _refuse_open_home(registry: Path) -> None:
    """See that nobody else can put a registry in the place of this one, if it lies in ``~/.amela``."""
    # Path's own raises for a user without a home.
    own = Path(os.path.expanduser("~/.amela"))  # noqa: PTH111
    if own in registry.parents and own.exists() and own.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{own} can be written by others, who could put a registry of their own there; run:"
            f" chmod go-w {own}"
        )


def _refuse_strangers(path: Path) -> None:
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{path} belongs to another user (uid {status.st_uid}); name a registry of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path} can be written by others; run: chmod go-w {path}")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
