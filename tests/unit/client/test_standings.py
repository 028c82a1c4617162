"""What people see while jobs come up, and what programs get."""

import io
import json
from pathlib import Path

import pytest
from amela_client.cli.output import plain, table
from amela_client.cli.standings import COLUMNS, LineView, TableView, as_json, rows, view_for
from amela_client.cluster.launch import Launch
from amela_client.cluster.standing import JobStanding, LaunchStanding
from amela_client.cluster.verdict import State
from amela_client.results import Gpu, Model, ServerStatus
from rich.console import Console

NOW = 1_000_000.0
SERVER = ServerStatus(
    "n1:5000",
    "amela.asr.v1.AsrService",
    reachable=True,
    serving=True,
    model=Model("salm", "canary-qwen", "0123456789abcdef", "cuda:0", ()),
    concurrency=64,
    queue=64,
    gpu=Gpu("NVIDIA H200", "GPU-1", 143_771),
    batch_seconds=640.0,
)
WAITING = JobStanding("7", State.PENDING, "Resources: waits [for] nodes", queued=3725)
READY = JobStanding("7", State.READY, node="n1", queued=30, starting=65, ends=NOW + 600, servers=(SERVER,))


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=160, highlight=False, markup=False), screen


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines() -> None:
    shown, screen = console(terminal=True)
    view = view_for(shown)
    assert isinstance(view, TableView)
    view.update([WAITING], NOW)
    view.update([READY], NOW)
    view.close()
    assert "Resources: waits [for] nodes" in screen.getvalue()
    assert isinstance(view_for(console(terminal=False)[0]), LineView)


def test_a_pipe_gets_a_line_for_each_change_only() -> None:
    shown, screen = console(terminal=False)
    view = LineView(shown)
    starting = JobStanding("7", State.STARTING, node="n1")
    for job in (WAITING, WAITING, starting, starting, READY, READY):
        view.update([job], NOW)
    view.close()
    assert screen.getvalue().splitlines() == [
        "job 7: pending, Resources: waits [for] nodes",
        "job 7: starting on n1",
        "job 7: ready (0:00:30 in the queue, 0:01:05 to start)",
    ]


def test_a_row_shows_the_gpu_its_memory_and_the_batch() -> None:
    [row] = rows([READY], NOW)
    assert dict(zip(COLUMNS, row, strict=True)) == {
        "job": "7",
        "state": "ready",
        "node": "n1",
        "address": "n1:5000",
        "model": "salm canary-qwen",
        "device": "NVIDIA H200 143,771 MiB",
        "batch": "640 s",
        "at once + queue": "64 + 64",
        "in the queue": "0:00:30",
        "to start": "0:01:05",
        "ends in": "0:10:00",
        "why": "",
    }


def test_a_job_of_several_servers_has_a_row_for_each() -> None:
    several = JobStanding("7", State.READY, servers=(SERVER, SERVER))
    assert len(rows([several], NOW)) == 2


def test_columns_without_anything_in_them_are_left_out() -> None:
    laid_out = table(("a", "b", "c"), [["1", "", "x"], ["2", "", ""]])
    assert [column.header for column in laid_out.columns] == ["a", "c"]


def test_a_launch_is_one_flat_object_for_programs() -> None:
    launch = Launch(Path("/r/launches/asr-1"), "asr", "slurm", "login", 1, 1, 0, False, NOW)
    shown = json.loads(json.dumps(as_json(LaunchStanding(launch, (READY,), 1))))
    assert (shown["name"], shown["folder"], shown["ready"], shown["count"]) == (
        "asr-1",
        "/r/launches/asr-1",
        1,
        1,
    )
    [job] = shown["jobs"]
    assert (job["state"], job["servers"][0]["gpu"]["memory_mib"]) == ("ready", 143_771)
    assert job["servers"][0]["model"]["name"] == "canary-qwen"


@pytest.mark.parametrize("value", [None, 1, 1.5, "x", True])
def test_what_json_has_stays_as_it_is(value: object) -> None:
    assert plain({"a": [value, (value,)]}) == {"a": [value, [value]]}
