"""What is handed to SLURM for a job array, and what is not handed in again."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from amela_client.cluster.array_run import ArrayRun
from amela_client.cluster.jobs import Job, JobState
from amela_client.cluster.plan import ServerPlan
from amela_client.cluster.script import MARKER, body_of
from amela_client.cluster.submission import Submission, run_folder, run_name, submit
from amela_client.errors import LaunchError, ManifestError, SetupError, SlurmError, SubmissionError
from amela_client.manifest import Manifest

GOLDEN = Path(__file__).parent / "golden"
COMMITTED = Path(__file__).parents[4] / "slurm"

RUN = ArrayRun(Path("/lab/done.run"), Path("/lab/data.json"), "0123456789abcdef", 90, 30, "/corpus")
LEAST = Submission(
    run=RUN,
    server=ServerPlan("vad-0a1b2c3d", "vad", RUN.folder, (Path("/corpus"),)),
    stage="vad",
    options=(),
    output=Path("/lab/done.json"),
    effective={},
    programs=Path("/venv/bin"),
)
MOST = replace(
    LEAST,
    server=ServerPlan(
        name="transcribe-0a1b2c3d",
        stage="asr",
        registry=RUN.folder,
        audio_roots=(Path("/corpus"),),
        image=Path("/images/asr.sif"),
        model="/models/canary qwen",
        engine="salm",
        options=("--precision", "bf16", "--prompt", "it's"),
        binds=("/scratch",),
        modules=("apptainer/1.4",),
        variables=(("HF_HOME", "/scratch/hf"),),
        partition="gpu",
        account="lab",
        qos="normal",
        time="8:00:00",
        gres="gpu:1",
        cpus=6,
        memory="32G",
        sbatch=("--constraint", "a100|h200"),
    ),
    stage="transcribe",
    options=("--words", "--prompt", "what's said"),
    table=Path("/lab/done.csv"),
    programs=None,
    client_image=Path("/images/client.sif"),
    audio_roots=(Path("/corpus"), Path("/more audio")),
)


def head(script: str, template: str) -> str:
    head, _, body = script.partition(body_of(template))
    assert body == ""
    return head


@pytest.mark.parametrize(("name", "submission"), [("least", LEAST), ("most", MOST)])
def test_the_scripts_are_as_they_were_looked_at(name: str, submission: Submission) -> None:
    assert head(submission.array_script(), "array.slurm") == (GOLDEN / f"array-{name}.head").read_text()
    assert head(submission.merge_script(), "merge.slurm") == (GOLDEN / f"merge-{name}.head").read_text()


@pytest.mark.parametrize("template", ["array.slurm", "merge.slurm"])
def test_what_the_scripts_do_is_what_the_committed_ones_do(template: str) -> None:
    assert (COMMITTED / template).read_text().endswith(f"{MARKER}\n{body_of(template)}")


def test_a_folder_that_slurm_would_take_for_a_pattern_is_refused() -> None:
    folder = Path("/lab/100%/done.run")
    strange = replace(LEAST, run=replace(RUN, folder=folder), server=replace(LEAST.server, registry=folder))
    with pytest.raises(SetupError, match="has '%' in its path"):
        strange.array_script()


def test_a_run_is_named_by_its_folder_so_that_its_jobs_are_found_again() -> None:
    assert run_folder(Path("/lab/done.json")) == Path("/lab/done.run")
    assert run_name("vad", Path("/lab/done.run")) == run_name("vad", Path("/lab/done.run"))
    assert run_name("vad", Path("/lab/done.run")) != run_name("vad", Path("/lab/other.run"))


class FakeSlurm:
    """Takes jobs and never runs them."""

    name = "slurm"

    def __init__(self) -> None:
        self.queue: list[Job] = []
        self.scripts: list[str] = []
        self.refuses = ""
        self.fault: Exception = SubmissionError("SLURM refuses it")

    def submit(self, script: Path, *, arguments: Sequence[str] = ()) -> str:
        if script.name == self.refuses:
            raise self.fault
        job = str(100 + len(self.scripts))
        self.scripts.append(" ".join([script.name, *arguments]))
        name = script.read_text().partition("--job-name=")[2].partition("\n")[0]
        ids = [job]
        if script.name == "array.slurm":
            first, _, last = arguments[0].removeprefix("--array=").partition("%")[0].partition("-")
            ids = [f"{job}_{task}" for task in range(int(first), int(last or first) + 1)]
        self.queue += [Job(id_, name, JobState.PENDING) for id_ in ids]
        return job

    def jobs(self, names: Sequence[str]) -> list[Job]:
        return [job for job in self.queue if job.name in names]

    def past(self, ids: Sequence[str]) -> dict[str, Job]:
        raise AssertionError

    def cancel(self, ids: Sequence[str]) -> None:
        self.queue = [job for job in self.queue if job.id not in ids]

    kill = cancel

    def end(self, *ids: str) -> None:
        self.cancel(ids)

    def set(self, id_: str, state: JobState) -> None:
        self.queue = [replace(job, state=state) if job.id == id_ else job for job in self.queue]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    lines = [json.dumps({"audio_filepath": f"/{number}.wav"}) for number in range(6)]
    (tmp_path / "data.json").write_text("\n".join(lines))
    return Manifest(tmp_path / "data.json")


@pytest.fixture
def submission(manifest: Manifest, tmp_path: Path) -> Submission:
    run = ArrayRun.planned(manifest, 3, tmp_path / "done.run")
    server = replace(LEAST.server, registry=run.folder)
    return replace(LEAST, run=run, server=server, output=tmp_path / "done.json", effective={"words": True})


def finish(submission: Submission, *tasks: int) -> None:
    for task in tasks:
        submission.run.result(task).write_text("{}\n{}\n")


def test_the_tasks_are_submitted_and_the_merge_after_them(submission: Submission, manifest: Manifest) -> None:
    slurm = FakeSlurm()
    submitted = submit(replace(submission, concurrent=2), manifest, slurm)
    assert slurm.scripts == ["array.slurm --array=0-2%2", "merge.slurm --dependency=afterany:100"]
    assert (submitted.tasks, submitted.job, submitted.merge) == ([0, 1, 2], "100", "101")
    assert submitted.jobs == ["100", "101"]
    assert not submitted.done


def test_what_waits_or_runs_is_not_submitted_again(submission: Submission, manifest: Manifest) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    again = submit(submission, manifest, slurm)
    assert len(slurm.scripts) == 2
    assert (again.tasks, again.job, again.queued, again.queued_jobs) == ([], None, [0, 1, 2], ["100"])
    assert again.merge == "101"


def test_tasks_that_failed_are_submitted_alone_and_merged_after_those_still_at_work(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    finish(submission, 0)
    slurm.end("100_0", "100_1")
    again = submit(submission, manifest, slurm)
    assert slurm.scripts[2:] == ["array.slurm --array=1", "merge.slurm --dependency=afterany:100:102"]
    assert (again.tasks, again.queued) == ([1], [2])
    # The merge that would have begun too early is gone.
    assert [job.id for job in slurm.queue] == ["100_2", "102_1", "103"]


@pytest.mark.parametrize("fault", [SubmissionError("no more jobs"), SlurmError("no more jobs")])
def test_a_merge_that_was_never_submitted_or_failed_is_submitted_alone(
    submission: Submission, manifest: Manifest, fault: Exception
) -> None:
    slurm = FakeSlurm()
    slurm.refuses, slurm.fault = "merge.slurm", fault
    with pytest.raises(
        LaunchError, match=r"submitted, as job 100, but not the job .*: no more jobs\nGive the same command"
    ):
        submit(submission, manifest, slurm)
    slurm.refuses = ""
    submit(submission, manifest, slurm)
    assert slurm.scripts == ["array.slurm --array=0-2", "merge.slurm --dependency=afterany:100"]
    finish(submission, 0, 1, 2)
    slurm.queue.clear()
    assert submit(submission, manifest, slurm).merge == "102"
    assert slurm.scripts[2:] == ["merge.slurm"]


def test_a_merge_that_would_begin_before_tasks_that_run_again_is_replaced_however_late(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    slurm.end("100_1")
    slurm.refuses = "merge.slurm"
    with pytest.raises(LaunchError, match="as job 102"):
        submit(submission, manifest, slurm)
    slurm.refuses = ""
    assert submit(submission, manifest, slurm).merge == "103"
    assert slurm.scripts[2:] == ["array.slurm --array=1", "merge.slurm --dependency=afterany:100:102"]
    assert [job.id for job in slurm.queue] == ["100_0", "100_2", "102_1", "103"]
    # And that one is kept, wherever it stands in the queue, also if an older one was left.
    slurm.queue = [slurm.queue[-1], Job("101", submission.merge_name, JobState.PENDING), *slurm.queue[:-1]]
    assert submit(submission, manifest, slurm).merge == "103"
    assert [job.id for job in slurm.queue] == ["103", "100_0", "100_2", "102_1"]


def test_a_merge_that_has_begun_before_the_tasks_have_ended_is_replaced(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    slurm.set("101", JobState.RUNNING)
    assert submit(submission, manifest, slurm).merge == "102"
    assert [job.id for job in slurm.queue] == ["100_0", "100_1", "100_2", "102"]


def test_a_merge_that_only_ends_is_as_good_as_what_it_has_written(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    finish(submission, 0, 1, 2)
    slurm.end("100_0", "100_1", "100_2")
    slurm.set("101", JobState.RUNNING)
    assert submit(submission, manifest, slurm).merge == "101"
    slurm.set("101", JobState.ENDING)
    submission.output.write_text("{}\n")
    assert submit(submission, manifest, slurm).done
    submission.output.unlink()
    assert submit(submission, manifest, slurm).merge == "102"
    assert [job.id for job in slurm.queue] == ["101", "102"]


def test_a_run_is_not_done_before_its_table_is_written_too(
    submission: Submission, manifest: Manifest, tmp_path: Path
) -> None:
    slurm = FakeSlurm()
    with_table = replace(submission, table=tmp_path / "done.csv")
    submit(with_table, manifest, slurm)
    slurm.queue.clear()
    finish(submission, 0, 1, 2)
    submission.output.write_text("{}\n")
    assert submit(submission, manifest, slurm).done
    assert submit(with_table, manifest, slurm).merge == "102"
    slurm.queue.clear()
    (tmp_path / "done.csv").write_text("")
    assert submit(with_table, manifest, slurm).done
    # That of an earlier merge.
    os.utime(tmp_path / "done.csv", ns=(0, 0))
    assert not submit(with_table, manifest, slurm).done


def test_of_two_clients_at_once_one_submits(submission: Submission, manifest: Manifest) -> None:
    slurm = FakeSlurm()
    with (
        submission.run.held(),
        pytest.raises(SetupError, match=r"done\.run is being split or submitted by another client right now"),
    ):
        submit(submission, manifest, slurm)
    assert slurm.scripts == []
    submit(submission, manifest, slurm)
    assert len(slurm.scripts) == 2


def test_a_run_that_another_client_has_made_otherwise_meanwhile_is_not_submitted(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    ArrayRun.split(manifest, 2, submission.run.folder)
    with pytest.raises(ManifestError, match="it has 2 tasks, not 3"):
        submit(submission, manifest, slurm)
    assert slurm.scripts == []


def test_a_run_is_done_when_the_output_is_as_new_as_all_results(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    submit(submission, manifest, slurm)
    slurm.queue.clear()
    finish(submission, 0, 1, 2)
    submission.output.write_text("{}\n")
    done = submit(submission, manifest, slurm)
    assert done.done
    assert (len(slurm.scripts), done.jobs) == (2, [])
    os.utime(submission.output, ns=(0, 0))
    assert not submit(submission, manifest, slurm).done


def test_options_that_change_results_are_refused_as_soon_as_tasks_are_on_their_way(
    submission: Submission, manifest: Manifest
) -> None:
    slurm = FakeSlurm()
    slurm.refuses = "array.slurm"
    with pytest.raises(SubmissionError):
        submit(replace(submission, effective={"words": False}), manifest, slurm)
    slurm.refuses = ""
    submit(submission, manifest, slurm)
    with pytest.raises(SetupError, match="words was true, now it is null"):
        submit(replace(submission, effective={}), manifest, slurm)
    assert len(slurm.scripts) == 2
