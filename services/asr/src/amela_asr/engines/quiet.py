"""NeMo without its announcements."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import NeMo within: what its telemetry and its optional parts say at import is kept out of the logs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
        from nemo.utils import logging as nemo_logging  # noqa: PLC0415 - after the imports that it is about

        nemo_logging.setLevel(logging.ERROR)
        # It calls every factory function among NeMo's building blocks a missing class.
        logging.getLogger("hydra").setLevel(logging.CRITICAL)
    finally:
        logging.disable(before)
