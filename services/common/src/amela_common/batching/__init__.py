"""Work of many callers in batches on one device: budgets, fairness, and what to do when memory runs out."""

from amela_common.batching.batcher import Batcher
from amela_common.batching.budget import Budget
from amela_common.batching.device import Device, DeviceThread
from amela_common.batching.metrics import BatchMetrics

__all__ = ["BatchMetrics", "Batcher", "Budget", "Device", "DeviceThread"]
