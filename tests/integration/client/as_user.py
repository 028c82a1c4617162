"""Runs a program as another user, also where only root can see the Python that runs it.

``as_user.py UID GROUP,… server|client ARGUMENTS``, as root; the server is one with a fake engine.
"""

import os
import sys
from pathlib import Path


def kept(folder: str) -> str:
    """Name a folder so that this process finds it whoever it becomes."""
    return f"/proc/self/fd/{os.open(folder, os.O_PATH)}"


if __name__ == "__main__":
    sys.path[:] = [kept(folder) for folder in sys.path if Path(folder).is_dir()]
    for package in [module for module in sys.modules.values() if hasattr(module, "__path__")]:
        package.__path__ = [kept(folder) for folder in package.__path__]

    user, groups, program, *sys.argv[1:] = sys.argv[1:]
    first, *others = map(int, groups.split(","))
    os.setgroups(others)
    os.setgid(first)
    os.setuid(int(user))

    if program == "server":
        from amela_common.server import run
        from fake_engine_server import FakeEngineService, FakeEngineSettings

        sys.exit(run(FakeEngineService, FakeEngineSettings, "amela-common", "A server that pretends."))
    from amela_client import cli

    cli.main()
