"""Schedules a cluster of 64 fake servers in virtual time: makespan against the ideal.

The ideal is what no schedule can beat: all work on all slots at once, or the longest recording on the
fastest slot, whichever takes longer. With kills it stays what it was without them. Each ratio is the worst
of three draws.
"""

import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Sequence

from amela_client.backlog import Task
from amela_client.scheduler import Scheduler
from fakes.servers import FakeServer, FakeSource, run_in_virtual_time
from google.protobuf.wrappers_pb2 import DoubleValue

SERVERS = 64
RECORDINGS = 50_000
SEEDS = (1, 2, 3)


def make_servers(rng: random.Random) -> list[FakeServer]:
    """Make servers of which the fastest are some ten times as fast as the slowest."""
    return [
        FakeServer(
            f"node{number}:50051",
            speed=rng.lognormvariate(2.0, 0.6),
            concurrency=rng.choice((1, 2, 4, 8)),
            overhead=0.01,
        )
        for number in range(SERVERS)
    ]


def make_recordings(rng: random.Random) -> list[float]:
    """Draw lengths in seconds: half below 20 s, some of many minutes."""
    return [rng.lognormvariate(3.0, 1.2) for _ in range(RECORDINGS)]


def ideal_makespan(servers: Sequence[FakeServer], recordings: Sequence[float]) -> float:
    """Bound the makespan from below, in seconds."""
    slots = [(server.speed, server.concurrency) for server in servers]
    together = sum(speed * concurrency for speed, concurrency in slots)
    return max(sum(recordings) / together, max(recordings) / max(speed for speed, _ in slots))


async def measure(seed: int, kills: int) -> tuple[float, float]:
    """Schedule all recordings, killing so many servers on the way; return ideal and real makespan."""
    rng = random.Random(seed)  # noqa: S311 - a draw to repeat, not a secret
    servers = make_servers(rng)
    recordings = make_recordings(rng)
    ideal = ideal_makespan(servers, recordings)
    loop = asyncio.get_running_loop()
    for victim in rng.sample(servers, kills):
        loop.call_later(rng.uniform(0.0, ideal), victim.kill)

    outcomes: Counter[int] = Counter()
    tasks = (Task(key, DoubleValue(value=seconds), seconds) for key, seconds in enumerate(recordings))
    began = loop.time()
    async with Scheduler(FakeSource(*servers)) as scheduler:
        async for outcome in scheduler.run(tasks):
            assert outcome.response == recordings[outcome.key], outcome
            outcomes[outcome.key] += 1
        makespan = loop.time() - began
    assert len(outcomes) == RECORDINGS, f"{RECORDINGS - len(outcomes)} recordings lost"
    assert set(outcomes.values()) == {1}, "recordings answered twice"
    return ideal, makespan


def main() -> int:
    """Print both ratios."""
    logging.disable(logging.WARNING)  # Each kill is one.
    for name, kills in (("cluster", 0), ("cluster-kills", SERVERS // 10)):
        print(f"{name}: {RECORDINGS} recordings on {SERVERS} servers, {kills} of them killed")
        ratios = []
        for seed in SEEDS:
            ideal, makespan = run_in_virtual_time(measure(seed, kills))
            print(f"  ideal makespan {ideal:.1f} s, scheduled {makespan:.1f} s")
            ratios.append(ideal / makespan)
        print(f"ratio {name} {min(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
