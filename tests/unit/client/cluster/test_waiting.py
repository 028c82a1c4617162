from pathlib import Path

import pytest
from amela_client.cli.waiting import refuse_unready
from amela_client.cluster.launch import Launch
from amela_client.cluster.standing import JobStanding, LaunchStanding
from amela_client.cluster.verdict import State
from amela_client.errors import LaunchError
from rich.console import Console

LAUNCH = Launch(Path("/r/launches/vad-1"), "vad", "slurm", "login", 2, 1, 0, renew=False, created=0.0)
READY = JobStanding("7", State.READY)


def test_jobs_that_are_ready_are_not_refused() -> None:
    refuse_unready(LaunchStanding(LAUNCH, (READY,), 1), ["7"], Console())


@pytest.mark.parametrize(("standings", "count"), [((READY,), "1 of 2"), ((), "2 of 2")])
def test_jobs_that_another_command_has_ended_are_not_ready(
    standings: tuple[JobStanding, ...], count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LaunchError, match=f"{count} jobs not ready"):
        refuse_unready(LaunchStanding(LAUNCH, standings, len(standings)), ["7", "8"], Console())
    assert "job 8: was told to end" in capsys.readouterr().out
