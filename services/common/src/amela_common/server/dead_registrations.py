"""Registrations of servers that were killed, and so could not remove their own."""

import logging
import os
import time
from pathlib import Path

from amela.common.v1.registration_pb2 import Registration
from google.protobuf.json_format import Parse, ParseError

from amela_common.server.registration import this_host

log = logging.getLogger(__name__)

_FORGOTTEN_SECONDS = 86_400.0
# The clocks that say when a process began and when its server registered tick differently.
_CLOCK_SECONDS = 2.0


def remove_dead(folder: Path) -> None:
    """Remove this user's registrations whose server is gone from this host, or silent for a day.

    One that a server on another host of the same name still has is back with its next heartbeat.
    """
    for path in folder.glob("*.json"):
        try:
            if path.is_file() and path.stat().st_uid == os.geteuid() and _is_dead(_read(path)):
                path.unlink(missing_ok=True)
                log.info("removed the registration of a server that is gone", extra={"id": path.stem})
        except (OSError, ValueError, ParseError):
            # Gone meanwhile, or none of a server's: clients name what they cannot read.
            continue


def _read(path: Path) -> Registration:
    return Parse(path.read_text("utf-8"), Registration(), ignore_unknown_fields=True)


def _is_dead(registration: Registration) -> bool:
    if not registration.HasField("heartbeat"):
        return False
    if time.time() - registration.heartbeat.seconds > _FORGOTTEN_SECONDS:
        return True
    if registration.id.partition("-")[2].rpartition("-")[0] != this_host():
        return False
    began = _process_began(registration.pid)
    return began is None or began > registration.started.seconds + _CLOCK_SECONDS


def _process_began(pid: int) -> float | None:
    """Ask when a process of this host was started, in Unix seconds; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in ("Z", "X"):
        return None
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    # Field 22 of proc(5); the state is the third.
    return int(boot.split()[1]) + int(fields[18]) / os.sysconf("SC_CLK_TCK")
