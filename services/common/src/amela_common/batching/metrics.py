"""What Prometheus sees of batches."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class BatchMetrics:
    """Counters of one batcher, in a server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.items = Histogram(
            "amela_batch_items",
            "Clips in a batch.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.seconds = Counter("amela_batch_seconds", "Audio computed, without padding.", registry=registry)
        self.padded_seconds = Counter(
            "amela_batch_padded_seconds", "Audio computed, padding included.", registry=registry
        )
        self.waiting = Gauge("amela_batch_waiting", "Clips that wait for a batch.", registry=registry)
        self.dropped = Counter(
            "amela_batch_dropped", "Clips that were cancelled before their batch began.", registry=registry
        )
        self.out_of_memory = Counter(
            "amela_out_of_memory", "Batches that did not fit into the device's memory.", registry=registry
        )
        self.budget = Gauge(
            "amela_batch_budget_seconds", "Padded seconds that a batch may hold.", registry=registry
        )
