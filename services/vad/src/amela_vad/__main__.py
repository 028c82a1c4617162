"""The command ``amela-vad``."""

import sys

from amela_common.server import run

from amela_vad.service import VadService
from amela_vad.settings import VadSettings


def main() -> int:
    """Serve voice activity detection until told to stop."""
    return run(VadService, VadSettings, "amela-vad", "Serve voice activity detection over gRPC.")


if __name__ == "__main__":
    sys.exit(main())
