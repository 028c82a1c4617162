"""What a request to synthesize asks for, checked."""

import numpy as np
from amela.sts.v1.sts_pb2 import SynthesizeRequest
from amela_common.errors import RequestError

from amela_sts.engine import Vocoder
from amela_sts.units import Ints


def units_of(request: SynthesizeRequest, vocabulary: int) -> Ints:
    """Take the units.

    Raises
    ------
    RequestError
        INVALID_REQUEST if there are none, or one is not below `vocabulary`.
    """
    units = np.array(request.units, np.int64)
    if not len(units):
        raise RequestError("INVALID_REQUEST", "units: there are none to speak", field="units")
    strangers = np.flatnonzero(units >= vocabulary)
    if len(strangers):
        at = int(strangers[0])
        raise RequestError(
            "INVALID_REQUEST",
            f"units[{at}] is {units[at]}, this model's run from 0 to {vocabulary - 1}:"
            " they come from another model or another vocabulary",
            field=f"units[{at}]",
        )
    return units


def durations_of(request: SynthesizeRequest, units: Ints, vocoder: Vocoder) -> Ints | None:
    """Take the durations; None asks for predicted ones.

    Raises
    ------
    RequestError
        INVALID_REQUEST if there are none though they are not to be predicted, there are both, they are not as
        many as units, or one is 0. UNSUPPORTED_OPTION if the vocoder cannot predict them.
    """
    if request.predict_durations:
        if request.durations:
            raise _invalid("durations: give them or have them predicted, not both")
        if not vocoder.config.predicts_durations:
            raise RequestError(
                "UNSUPPORTED_OPTION",
                "this vocoder predicts no durations: give those that came with the units",
                field="predict_durations",
            )
        return None
    if not request.durations:
        raise _invalid(
            "durations: they are missing, and deduplicated units without them would be cut short; give those"
            " that came with the units, all 1 for units that were not deduplicated, or set predict_durations"
        )
    durations = np.array(request.durations, np.int64)
    if len(durations) != len(units):
        raise _invalid(f"durations: {len(durations)} of them for {len(units)} units")
    if not durations.all():
        raise _invalid(f"durations[{int(np.argmin(durations))}] is 0: a unit lasts 1 frame at least")
    return durations


def check_length(frames: int, unit_rate: float, max_seconds: float | None) -> None:
    """Refuse what would become too long for the server; raises `RequestError` AUDIO_TOO_LONG."""
    if max_seconds is not None and frames / unit_rate > max_seconds:
        raise RequestError(
            "AUDIO_TOO_LONG",
            f"the units last {frames / unit_rate:.1f} s, this server takes {max_seconds:g} s:"
            " send them in several requests",
            limit=f"{max_seconds:g}",
        )


def _invalid(message: str) -> RequestError:
    return RequestError("INVALID_REQUEST", message, field="durations")
