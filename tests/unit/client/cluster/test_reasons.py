import pytest
from amela_client.cluster.reasons import explain


@pytest.mark.parametrize(
    "reason",
    [
        "Resources",
        "Priority",
        "BeginTime",
        "None",
        "",
        "ReqNodeNotAvail",
        "QOSMaxGRESPerUser",
        "Novelty",
        "AssocGrpGRES",
    ],
)
def test_what_passes_by_itself_is_waited_for(reason: str) -> None:
    assert explain(reason).meaning
    assert not explain(reason).hopeless


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionTimeLimit",
        "BadConstraints",
        "JobHeldUser",
        "DependencyNeverSatisfied",
        "QOSMaxWallDurationPerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMaxGRESPerJob",
        "MaxMemPerLimit",
        "AssocGrpCPUMinutesLimit",
        "QOSMinGRES",
        "InvalidAccount",
    ],
)
def test_what_never_passes_by_itself_comes_with_what_to_do(reason: str) -> None:
    assert explain(reason).hopeless
    assert explain(reason).advice


@pytest.mark.parametrize(
    "reason", ["ReqNodeNotAvail, UnavailableNodes:n1", "(ReqNodeNotAvail)", "ReqNodeNotAvail(Unavailable:n1)"]
)
def test_details_after_the_word_do_not_hide_it(reason: str) -> None:
    assert explain(reason) == explain("ReqNodeNotAvail")
