"""A pool of worker processes: one engine in each, one request at a time, replaced when they die."""

from amela_common.pool.pool import WorkerPool
from amela_common.pool.protocol import CHECKPOINT, Factory, Handler

__all__ = ["CHECKPOINT", "Factory", "Handler", "WorkerPool"]
