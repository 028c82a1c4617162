"""A real SLURM on this machine: two emulated nodes with four CPUs and two fake GPUs each."""

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "setpriv")
NODES = ("n1", "n2")
GPUS_PER_NODE = 2
KILL_WAIT_SECONDS = 8
_UP_SECONDS = 60
_DOWN_SECONDS = 30

# cred_expire is also how long a requeued job waits (BeginTime), 120 s by default. KillWait is how long a
# cancelled job has from SIGTERM to SIGKILL, 30 s by default.
_SLURM_CONF = """\
ClusterName=amela-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
MessageTimeout=5
OverTimeLimit=0
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=16000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=16000 Gres=gpu:2
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=short Nodes=n1,n2 MaxTime=00:05:00 State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass
class SlurmCluster:
    """A cluster of this process's own. Other clusters, of other runs, may stand beside it."""

    folder: Path
    _daemons: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @cached_property
    def env(self) -> dict[str, str]:
        """This process's environment as it was at first, for SLURM's programs and ours."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": path}

    def run(
        self, *argv: str | Path, code: int | None = 0, timeout: float = 60, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end; any exit code but `code` (None: whichever) fails the test."""
        done = subprocess.run(
            list(map(str, argv)),
            env={**self.env, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or done.returncode == code, f"{argv}: {done.stderr}{done.stdout}"
        return done

    def submit(self, script: str, *options: str, **environment: str) -> str:
        """Submit the text of a script; answer the job's id."""
        path = self.folder / f"script-{secrets.token_hex(4)}"
        path.write_text(f"#!/bin/bash\n{script}\n")
        # Where nothing else is asked for, logs stay out of the working folder.
        output = f"--output={self.folder}/%x-%j.out"
        return self.run("sbatch", "--parsable", output, *options, path, **environment).stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """Answer `scontrol show job`'s fields (JobState, Reason, ExitCode, …); none once it is forgotten."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job, code=None)
        words = (word.partition("=") for word in shown.stdout.split())
        return {name: value for name, sign, value in words if sign}

    def wait_for(self, job: str, *states: str, timeout: float = 60) -> dict[str, str]:
        """Wait until the job is in one of the states (RUNNING, COMPLETED, …), and answer its fields."""
        deadline = time.monotonic() + timeout
        while (fields := self.job(job)).get("JobState") not in states:
            if time.monotonic() > deadline:
                pytest.fail(f"job {job} is not {' or '.join(states)} after {timeout} s: {fields}")
            time.sleep(0.2)
        return fields

    def hasten(self, job: str) -> None:
        """Let a job that is requeued begin at once, where SLURM waits for some seconds (BeginTime)."""
        self.wait_for(job, "PENDING")
        # A credential of the second in which the last run ended counts as that one's, which is revoked.
        time.sleep(1.5)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def clear(self) -> None:
        """End all jobs, and wait until nothing is left of them."""
        deadline = time.monotonic() + _DOWN_SECONDS
        while jobs := self.run("squeue", "--noheader", "--format=%A").stdout.split():
            if time.monotonic() > deadline:
                pytest.fail(f"these jobs do not end: {jobs}")
            self.run("scancel", "--full", "--signal=KILL", *jobs, code=None)
            self.run("scancel", *jobs, code=None)
            time.sleep(0.2)

    def start_controller(self) -> None:
        """Start slurmctld, which goes on with the jobs that it knew."""
        self._start("slurmctld", "slurmctld", "-D")

    def stop_controller(self) -> None:
        """End slurmctld, as an administrator does for an update: jobs keep running."""
        self._stop("slurmctld")

    def start(self) -> None:
        """Start the cluster, and wait until both nodes take jobs."""
        self._configure()
        files = {
            "socket": "socket",
            "key-file": "key",
            "log-file": "log",
            "pid-file": "pid",
            "seed-file": "seed",
        }
        options = [f"--{option}={self.folder}/munge.{file}" for option, file in files.items()]
        self._start("munged", "munged", "--foreground", *options)
        self.start_controller()
        for node in NODES:
            self._start(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        deadline = time.monotonic() + _UP_SECONDS
        while self.run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%T", code=None).stdout != "idle\n" * len(
            NODES
        ):
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                pytest.fail(f"SLURM did not start ({ended or 'nodes not idle'}):\n{self._last_words()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End everything that belongs to the cluster, and what jobs may have left running."""
        for name in reversed(list(self._daemons)):
            self._stop(name)
        marker = f"SLURM_CONF={self.conf}".encode()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if marker in environ.read_bytes().split(b"\0"):
                    os.kill(int(environ.parent.name), signal.SIGKILL)

    def _configure(self) -> None:
        self.conf.write_text(
            _SLURM_CONF.format(
                host=socket.gethostname(),
                folder=self.folder,
                ports=_free_ports(1 + len(NODES)),
                kill_wait=KILL_WAIT_SECONDS,
            )
        )
        gpus = []
        for node in NODES:
            for gpu in range(GPUS_PER_NODE):
                # As much of a device as SLURM asks for: the same as /dev/null.
                os.mknod(self.folder / f"fakegpu-{node}-{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            gpus.append(
                f"NodeName={node} Name=gpu File={self.folder}/fakegpu-{node}-[0-{GPUS_PER_NODE - 1}]\n"
            )
        (self.folder / "gres.conf").write_text("".join(gpus))
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.words").open("ab") as words:
            self._daemons[name] = subprocess.Popen(
                # It ends with the thread that starts it, even if that is killed: take the main one.
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )

    def _stop(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(_DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _last_words(self) -> str:
        logs = [*self.folder.glob("*.words"), *self.folder.glob("*.log")]
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1000:]}" for log in logs)


@contextmanager
def running_cluster() -> Iterator[SlurmCluster]:
    """Start a cluster, and leave nothing of it."""
    # Under pytest's own folders, which are private, other users could not reach munge's socket.
    folder = Path(tempfile.mkdtemp(prefix="amela-slurm-"))
    folder.chmod(0o755)
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
        cluster.clear()
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def _free_ports(count: int) -> list[int]:
    # SLURM takes numbers only, not sockets.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
