"""The command ``amela-asr``."""

import sys

from amela_common.server import run

from amela_asr import staging
from amela_asr.service import AsrService
from amela_asr.settings import AsrSettings

_DESCRIPTION = """Serve speech recognition over gRPC.
`amela-asr stage MODEL --to DIR` gets a model ready for nodes without internet."""


def main() -> int:
    """Serve speech recognition until told to stop, or stage a model."""
    if sys.argv[1:2] == ["stage"]:
        return staging.main(sys.argv[2:])
    return run(AsrService, AsrSettings, "amela-asr", _DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
