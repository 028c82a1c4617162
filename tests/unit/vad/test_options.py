import pytest
from amela.vad.v1 import vad_pb2
from amela_common.durations import to_duration
from amela_common.errors import RequestError
from amela_common.voice.segmentation import SegmentationOptions
from amela_vad.options import options_from_proto


def test_unset_fields_keep_their_defaults() -> None:
    assert options_from_proto(vad_pb2.SegmentationOptions()) == SegmentationOptions()


def test_every_field_is_taken() -> None:
    message = vad_pb2.SegmentationOptions(
        threshold=0.25, merge_gap=to_duration(0.3), min_speech=to_duration(0.2), padding=to_duration(0.1)
    )
    assert options_from_proto(message) == SegmentationOptions(0.25, 0.3, 0.2, 0.1)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_ends_of_the_threshold_are_allowed(threshold: float) -> None:
    assert options_from_proto(vad_pb2.SegmentationOptions(threshold=threshold)).threshold == threshold


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), float("inf"), float("-inf")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(RequestError, match=r"threshold .* 0 to 1") as caught:
        options_from_proto(vad_pb2.SegmentationOptions(threshold=threshold))
    assert caught.value.reason == "INVALID_REQUEST"
    assert caught.value.metadata == {"field": "segmentation.threshold"}


@pytest.mark.parametrize("name", ["merge_gap", "min_speech", "padding"])
def test_a_negative_time_is_refused_by_name(name: str) -> None:
    message = vad_pb2.SegmentationOptions(**{name: to_duration(-0.5)})
    with pytest.raises(RequestError, match=f"{name} cannot be -0.5 s") as caught:
        options_from_proto(message)
    assert caught.value.metadata == {"field": f"segmentation.{name}"}
