"""A request's segmentation options, checked."""

from amela.vad.v1 import vad_pb2
from amela_common.durations import from_duration
from amela_common.errors import RequestError
from amela_common.voice.segmentation import SegmentationOptions


def options_from_proto(message: vad_pb2.SegmentationOptions) -> SegmentationOptions:
    """Take a request's ``SegmentationOptions``; what is unset keeps its default.

    Raises
    ------
    RequestError
        INVALID_REQUEST, whose metadata's ``field`` names the option.
    """
    values: dict[str, float] = {}
    if message.HasField("threshold"):
        if not 0 <= message.threshold <= 1:
            raise _invalid("threshold", f"{message.threshold:g}: give a probability from 0 to 1")
        values["threshold"] = message.threshold
    set_fields = {field.name for field, _ in message.ListFields()}
    for name in set_fields & {"merge_gap", "min_speech", "padding"}:
        seconds = from_duration(getattr(message, name))
        if seconds < 0:
            raise _invalid(name, f"{seconds:g} s: give 0 s or more")
        values[name] = seconds
    return SegmentationOptions(**values)


def _invalid(name: str, fault: str) -> RequestError:
    field = f"segmentation.{name}"
    return RequestError("INVALID_REQUEST", f"{field} cannot be {fault}", field=field)
