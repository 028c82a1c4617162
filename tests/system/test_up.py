"""Servers as jobs, by the command line: on this machine, and on a real SLURM."""

import grp
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import EXAMPLES, StartServer, wait_until
from tests.integration.client.conftest import Cli, Line, clips

from .slurm_cluster import SlurmCluster

LOCAL = ("--launcher", "local")
SERVER = ("--audio-root", EXAMPLES, "--", "--workers", "1")


@dataclass(frozen=True)
class UserCli(Cli):
    """``amela-client`` of a user who has a registry and no site file."""

    registry: Path

    def start(self, *arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
        return super().start(*arguments, **{"AMELA_REGISTRY": str(self.registry), **environment})


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Give a registry whose name is as awkward as names of folders get."""
    return tmp_path / "a 'lab' & \"its\" registry Öl 音"


@pytest.fixture
def cli(tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Run commands in a folder of their own, and end what they have started."""
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AMELA_SITE", raising=False)
    yield UserCli(tmp_path / "work", registry)
    for process in processes_of(registry):
        process.kill()


@pytest.fixture
def stuck(tmp_path: Path) -> tuple[str | Path, ...]:
    """Give options with which a server never gets ready, and never ends: it waits for its certificate."""
    os.mkfifo(tmp_path / "fifo")
    return ("--", "--tls-cert", tmp_path / "fifo", "--tls-key", tmp_path / "fifo")


def up(cli: Cli, *arguments: str | Path, code: int = 0) -> Line:
    """Start servers, and give the launch as `up --json` shows it."""
    shown: Line = json.loads(cli.run("up", "vad", "--json", *arguments, code=code).stdout)
    return shown


def status(cli: Cli, *names: str) -> Line:
    shown: Line = json.loads(cli.run("status", "--json", *names).stdout)
    return shown


def states(cli: Cli, name: str) -> dict[str, str]:
    """Give the state of each job of a launch."""
    [launch] = status(cli, name)["launches"]
    return {job["job"]: job["state"] for job in launch["jobs"]}


def processes_of(registry: Path) -> list[psutil.Process]:
    """Find everything that runs for a registry: its folder is in the environment of all that a job starts."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        if variables.get("AMELA_LAUNCH_FOLDER", "").startswith(f"{registry}/"):
            found.append(process)
    return found


def assert_nothing_is_left(registry: Path) -> None:
    assert processes_of(registry) == []
    assert sorted(path.name for path in registry.iterdir()) == ["launches", "token"]
    assert list((registry / "launches").iterdir()) == []


class TestOnThisMachine:
    def test_servers_come_up_serve_and_leave_nothing_behind(self, cli: Cli, registry: Path) -> None:
        launch = up(cli, "--count", "2", *LOCAL, *SERVER)
        assert [job["state"] for job in launch["jobs"]] == ["ready", "ready"]
        assert (launch["ready"], launch["count"], launch["launcher"]) == (2, 2, "local")
        manifest = clips(12)
        cli.write("data.json", *manifest)
        cli.run("vad", "data.json", "-o", "vad.json")
        assert [line["id"] for line in cli.read("vad.json")] == [line["id"] for line in manifest]
        assert len(processes_of(registry)) >= 4
        cli.run("down", launch["name"])
        assert_nothing_is_left(registry)

    def test_the_summary_for_people_says_what_to_type_next(self, cli: Cli, registry: Path) -> None:
        shown = cli.run("up", "vad", *LOCAL, *SERVER).stderr
        [name] = [launch["name"] for launch in status(cli)["launches"]]
        assert "1 of 1 ready" in shown
        assert f"amela-client down {name}" in shown
        table = cli.run("status").stdout
        assert f"{name}: 1 of 1 ready" in table
        assert "ten-vad" in table

    def test_servers_that_were_started_by_hand_are_shown_and_left_alone(
        self, cli: Cli, registry: Path, start_server: StartServer
    ) -> None:
        by_hand = start_server(["amela-vad", "--workers", "1"], registry)
        launch = up(cli, *LOCAL, *SERVER)
        [other] = status(cli)["others"]
        assert (other["pid"], other["launch"], other["serving"]) == (by_hand.process.pid, "", True)
        cli.run("down", "--all")
        [other] = status(cli)["others"]
        assert other["pid"] == by_hand.process.pid
        assert not (registry / "launches" / launch["name"]).exists()

    def test_what_was_killed_is_shown_and_replaced_and_its_registration_removed(
        self, cli: Cli, registry: Path
    ) -> None:
        launch = up(cli, *LOCAL, *SERVER)
        # All at once, as when a machine is lost: the script has no time for a word.
        for group in {os.getpgid(process.pid) for process in processes_of(registry)}:
            os.killpg(group, signal.SIGKILL)
        wait_until(lambda: not processes_of(registry))
        [dead] = status(cli)["launches"]
        assert (dead["jobs"][0]["state"], dead["ready"]) == ("lost", 0)
        assert "removes the registration" in dead["jobs"][0]["advice"]
        replaced = json.loads(cli.run("scale", launch["name"], "1", "--json").stdout)
        assert [job["state"] for job in replaced["jobs"]] == ["lost", "ready"]
        cli.run("down", launch["name"])
        assert_nothing_is_left(registry)

    def test_more_servers_and_fewer(self, cli: Cli, registry: Path) -> None:
        name = up(cli, "--count", "1", *LOCAL, *SERVER)["name"]
        cli.run("scale", name, "3")
        first, *_ = states(cli, name)
        cli.run("scale", name, "1")
        assert states(cli, name) == {first: "ready"}
        assert len(list(registry.glob("*.json"))) == 1

    def test_a_server_that_fails_is_shown_with_its_last_words(self, cli: Cli) -> None:
        done = cli.run("up", "vad", *LOCAL, "--", "--port", "no-number", code=1)
        assert "failed" in done.stderr
        assert "--port" in done.stderr.partition("failed")[2]
        [launch] = status(cli)["launches"]
        assert (launch["jobs"][0]["state"], launch["jobs"][0]["exit_code"]) == ("failed", 2)
        assert "no-number" in cli.run("logs", launch["name"]).stdout

    def test_a_server_that_fails_does_not_take_its_neighbours_along(self, cli: Cli, registry: Path) -> None:
        name = up(cli, "--count", "2", *LOCAL, *SERVER)["name"]
        victim = json.loads(next(registry.glob("*.json")).read_text())
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: sorted(states(cli, name).values()) == ["failed", "ready"])

    def test_an_interrupted_wait_leaves_the_jobs_and_says_so(
        self, cli: Cli, registry: Path, stuck: tuple[str | Path, ...]
    ) -> None:
        waiting = cli.start("up", "vad", *LOCAL, *stuck)
        wait_until(lambda: list(registry.glob("launches/*/jobs/*")))
        wait_until(lambda: len(processes_of(registry)) > 1)
        waiting.send_signal(signal.SIGINT)
        _, words = waiting.communicate(timeout=30)
        [launch] = status(cli)["launches"]
        assert waiting.returncode == 130
        assert f"amela-client down {launch['name']}" in words
        assert launch["jobs"][0]["state"] == "starting"

    def test_a_server_that_is_never_ready_and_never_ends_holds_up_nobody(
        self, cli: Cli, registry: Path, stuck: tuple[str | Path, ...]
    ) -> None:
        assert (
            "1 of 1 jobs not ready" in cli.run("up", "vad", *LOCAL, "--timeout", "3", *stuck, code=1).stderr
        )
        assert "--kill" in cli.run("down", "--all", "--timeout", "1", code=1).stderr
        [launch] = status(cli)["launches"]
        assert launch["jobs"][0]["state"] == "draining"
        assert "was taken down" in cli.run("scale", launch["name"], "2", code=1).stderr
        cli.run("down", "--all", "--kill")
        assert_nothing_is_left(registry)

    def test_servers_that_another_command_ends_meanwhile_are_not_said_to_be_ready(
        self, cli: Cli, registry: Path, stuck: tuple[str | Path, ...]
    ) -> None:
        waiting = cli.start("up", "vad", *LOCAL, *stuck)
        wait_until(lambda: len(processes_of(registry)) > 1)
        cli.run("down", "--all", "--kill")
        _, words = waiting.communicate(timeout=60)
        assert waiting.returncode == 1
        assert "was told to end" in words
        assert "1 of 1 jobs not ready" in words

    def test_two_commands_at_once_start_and_end_what_one_would(self, cli: Cli, registry: Path) -> None:
        name = up(cli, *LOCAL, *SERVER)["name"]
        for process in [cli.start("scale", name, "2") for _ in range(2)]:
            _, words = process.communicate(timeout=120)
            assert process.returncode == 0, words
        assert list(states(cli, name).values()) == ["ready", "ready"]
        for process in [cli.start("down", name) for _ in range(2)]:
            _, words = process.communicate(timeout=120)
            # The second may come when there is nothing left.
            assert process.returncode == 0 or "no launch is called" in words, words
        assert_nothing_is_left(registry)

    def test_logs_are_followed_until_the_servers_end(self, cli: Cli) -> None:
        name = up(cli, *LOCAL, *SERVER)["name"]
        following = cli.start("logs", name, "--follow", "--json")
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["job"] == f"{name}-1"
        cli.run("down", name, "--keep-logs")
        rest, _ = following.communicate(timeout=30)
        assert any("draining" in json.loads(line)["text"] for line in rest.splitlines())
        assert following.returncode == 0

    def test_logs_can_outlive_their_launch(self, cli: Cli, registry: Path) -> None:
        name = up(cli, *LOCAL, *SERVER)["name"]
        cli.run("down", name, "--keep-logs")
        assert [path.name for path in (registry / "launches" / name).rglob("*")] == ["logs", f"{name}-1.log"]
        assert status(cli)["launches"] == []

    def test_the_script_can_be_looked_at_before_anything_happens(self, cli: Cli, registry: Path) -> None:
        script = cli.run("up", "vad", "--time", "8:00:00", "--dry-run", *SERVER).stdout
        assert "#SBATCH --time=8:00:00" in script
        assert "--workers 1" in script
        assert not registry.exists()
        checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0

    def test_a_shared_registry_is_for_its_group(self, cli: Cli, registry: Path) -> None:
        group = grp.getgrgid(os.getegid()).gr_name
        up(cli, *LOCAL, "--group", group, *SERVER)
        assert stat.S_IMODE(registry.stat().st_mode) == 0o2750
        for path in (registry / "token", *registry.glob("*.json")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE((registry / "launches").stat().st_mode) & 0o777 == 0o700


class TestWhatCannotWork:
    """Nothing is submitted, the words say what to mend, and the exit code is 2."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["vad", "--image", "/no/vad.sif"], "the image /no/vad.sif is not there"),
            (["asr", "--model", "/no/model.nemo"], "the model /no/model.nemo is not there"),
            (["asr", "--model", "no-such-entry"], "no model in the catalogue is called 'no-such-entry'"),
            (["vad", "--audio-root", "/no/audio"], "the audio folder /no/audio"),
            (["vad", "--time", "soon"], "--time 'soon' is not a time limit"),
            (["vad", "--renew"], "--renew needs an allocation"),
            (["vad", "--group", "no-such-group"], "no Unix group 'no-such-group'"),
            (["vad", "--site", "/no/site.env"], "site file /no/site.env"),
            (["tts"], "'tts' is not one of"),
        ],
    )
    def test_a_wrong_option_is_named(
        self, cli: Cli, registry: Path, arguments: list[str], words: str
    ) -> None:
        shown = cli.run("up", *arguments, *LOCAL, code=2).stderr
        assert words in " ".join(shown.split())
        assert not (registry / "launches").exists()

    def test_without_slurm_the_words_name_the_local_launcher(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        assert "--launcher local" in cli.run("up", "vad", code=2, PATH=str(tmp_path / "bin")).stderr

    def test_a_registry_that_cannot_be_made_is_named(self, cli: Cli, registry: Path) -> None:
        registry.touch()
        shown = cli.run("up", "vad", *LOCAL, code=2).stderr
        assert f"the registry {registry} cannot be used" in shown

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
    def test_a_disk_that_is_full_is_named(self, cli: Cli, registry: Path) -> None:
        registry.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", registry], check=True)
        try:
            shown = cli.run("up", "vad", *LOCAL, code=2).stderr
            assert list(registry.iterdir()) == []
        finally:
            subprocess.run(["umount", registry], check=True)
        assert "MiB free, and logs need" in shown


class TestOnSlurm:
    def test_each_server_has_a_gpu_of_its_own_and_nothing_is_left_of_them(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        launch = up(cli, "--count", "3", "--gres", "gpu:1", "--time", "1:00:00", *SERVER)
        assert [job["state"] for job in launch["jobs"]] == ["ready"] * 3
        assert all(job["queued"] is not None and job["starting"] > 0 for job in launch["jobs"])
        devices = set()
        for job in launch["jobs"]:
            [server] = job["servers"]
            assert (server["slurm_job"], server["node"]) == (job["job"], job["node"])
            assert server["ends"] == pytest.approx(job["ends"], abs=2)
            devices.add((job["node"], psutil.Process(server["pid"]).environ()["CUDA_VISIBLE_DEVICES"]))
        assert len(devices) == 3
        cli.run("down", launch["name"])
        assert slurm.run("squeue", "-h").stdout == ""
        assert_nothing_is_left(registry)

    def test_several_servers_share_each_gpu_of_a_job(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        launch = up(cli, "--gres", "gpu:2", "--per-gpu", "2", *SERVER)
        [job] = launch["jobs"]
        assert (job["state"], launch["servers_per_job"]) == ("ready", 4)
        gpus = [psutil.Process(server["pid"]).environ()["CUDA_VISIBLE_DEVICES"] for server in job["servers"]]
        assert sorted(gpus) == ["0", "0", "1", "1"]

    def test_what_the_shell_and_the_site_have_for_sbatch_comes_after_the_command(
        self, cli: Cli, registry: Path, tmp_path: Path, slurm: SlurmCluster
    ) -> None:
        site = tmp_path / "site.env"
        site.write_text('AMELA_SBATCH="--partition=short --time=3 --comment=ours"\n')
        shell = {
            "SBATCH_JOB_NAME": "mine",
            "SBATCH_PARTITION": "short",
            "SBATCH_TIMELIMIT": "2",
            "SBATCH_WAIT": "1",
        }
        options = ("--site", site, "--partition", "gpu", "--time", "30", "--no-wait", "--json", *SERVER)
        launch = json.loads(cli.run("up", "vad", *options, **shell).stdout)
        [job] = launch["jobs"]
        fields = slurm.job(job["job"])
        assert fields["JobName"] == f"amela-{launch['name']}"
        assert (fields["Partition"], fields["TimeLimit"], fields["Comment"]) == ("gpu", "00:30:00", "ours")
        cli.run("down", launch["name"])
        assert slurm.run("squeue", "-h").stdout == ""

    def test_a_job_that_waits_says_why_and_is_the_first_to_go(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        done = cli.run("up", "vad", "--count", "3", "--gres", "gpu:2", "--timeout", "10", *SERVER, code=1)
        assert "Resources: waits for nodes or GPUs to become free" in done.stderr
        [launch] = status(cli)["launches"]
        name = launch["name"]
        by_state = {job["state"]: job["job"] for job in launch["jobs"]}
        assert sorted(job["state"] for job in launch["jobs"]) == ["pending", "ready", "ready"]
        cli.run("scale", name, "2")
        assert list(states(cli, name).values()) == ["ready", "ready"]
        assert by_state["pending"] not in states(cli, name)

    def test_a_job_that_would_wait_for_ever_is_not_waited_for(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        done = cli.run("up", "vad", "--partition", "short", "--time", "1:00:00", *SERVER, code=1)
        # PartitionConfig, until the scheduler has had a closer look: then PartitionTimeLimit.
        assert "pending, Partition" in done.stderr
        assert "give a shorter --time" in done.stderr
        cli.run("down", "--all")
        assert slurm.run("squeue", "-h").stdout == ""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--gres", "gpu:9"], "Requested node configuration is not available"),
            (["--partition", "no-such-partition"], "invalid partition"),
        ],
    )
    def test_what_slurm_refuses_is_said_in_its_words_and_leaves_nothing(
        self, cli: Cli, registry: Path, slurm: SlurmCluster, arguments: list[str], words: str
    ) -> None:
        assert words in cli.run("up", "vad", *arguments, *SERVER, code=2).stderr
        assert list((registry / "launches").iterdir()) == []

    def test_a_server_that_fails_is_explained_though_slurm_keeps_no_accounts(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        done = cli.run("up", "vad", "--", "--port", "no-number", code=1)
        assert "amela-vad ended with exit code 2" in done.stderr
        assert "--port" in done.stderr.partition("failed")[2]

    def test_a_job_that_was_cancelled_by_hand_is_replaced(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        launch = up(cli, "--count", "2", *SERVER)
        first = launch["jobs"][0]["job"]
        slurm.run("scancel", first)
        slurm.wait_for(first, "CANCELLED", "COMPLETED", "FAILED")
        wait_until(lambda: states(cli, launch["name"])[first] == "ended")
        assert "starts the others" in status(cli)["launches"][0]["advice"]
        cli.run("scale", launch["name"], "2")
        assert list(states(cli, launch["name"]).values()) == ["ended", "ready", "ready"]

    def test_a_requeued_job_registers_again(self, cli: Cli, registry: Path, slurm: SlurmCluster) -> None:
        launch = up(cli, *SERVER)
        [job] = launch["jobs"]
        slurm.run("scontrol", "requeue", job["job"])
        slurm.wait_for(job["job"], "PENDING")
        wait_until(lambda: status(cli)["launches"][0]["ready"] == 1, timeout=90)
        [again] = status(cli)["launches"][0]["jobs"]
        assert (again["job"], again["restarts"]) == (job["job"], 1)
        assert again["servers"][0]["registration"] != job["servers"][0]["registration"]

    def test_while_slurm_is_away_servers_speak_for_themselves(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        up(cli, *SERVER)
        slurm.stop_controller()
        try:
            shown = status(cli)
        finally:
            slurm.start_controller()
        assert shown["launches"][0]["ready"] == 1
        assert "SLURM does not answer" in shown["problems"][0]

    def test_down_ends_only_what_the_launch_submitted(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        name = up(cli, *SERVER)["name"]
        other = slurm.submit("sleep 300", "--job-name=amela-other")
        stranger = slurm.submit("sleep 300", f"--job-name=amela-{name}")
        longer = slurm.submit("sleep 300", f"--job-name=amela-{name}0")
        slurm.wait_for(stranger, "RUNNING")
        # As if a job's number had come round again.
        (registry / "launches" / name / "jobs" / other).touch()
        shown = cli.run("down", name, code=1).stderr
        assert f"no record of: {stranger}" in shown
        assert all(slurm.job(each)["JobState"] == "RUNNING" for each in (other, stranger, longer))
        slurm.run("scancel", stranger)
        cli.run("down", name)
        assert_nothing_is_left(registry)

    def test_a_successor_takes_over_before_the_time_is_up(
        self, cli: Cli, registry: Path, slurm: SlurmCluster
    ) -> None:
        launch = up(cli, "--renew", "--time", "1", *SERVER)
        name, first = launch["name"], launch["jobs"][0]["job"]
        wait_until(lambda: len(states(cli, name)) == 2)
        [shown] = status(cli)["launches"]
        assert (shown["ready"], shown["count"], shown["advice"]) == (1, 1, "")
        assert shown["jobs"][1]["succeeds"] == first
        assert "takes over" in shown["jobs"][1]["words"]

        def taken_over() -> bool:
            [now] = status(cli)["launches"]
            # Not for a moment is there none.
            assert now["ready"] == 1
            return first not in {job["job"] for job in now["jobs"]}

        wait_until(taken_over, timeout=120)
        cli.run("down", name)
        assert slurm.run("squeue", "-h").stdout == ""
        assert_nothing_is_left(registry)
