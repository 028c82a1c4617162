"""The command ``amela-sts``."""

import sys

from amela_common.errors import ConfigError
from amela_common.server import run

from amela_sts.commands import COMMANDS, run_command
from amela_sts.service import StsService
from amela_sts.settings import StsSettings

_DESCRIPTION = (
    "Serve speech to discrete units and back over gRPC. `amela-sts doctor` checks the environment,"
    " `amela-sts models` lists models, `amela-sts stage MODEL --to DIR` fetches one."
)


def main() -> int:
    """Serve until told to stop, or run one of the other commands."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        try:
            return run_command(arguments)
        except ConfigError as error:
            print(f"amela-sts: {error}", file=sys.stderr)
            return 2
    return run(StsService, StsSettings, "amela-sts", _DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
