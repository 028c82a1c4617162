"""What Prometheus sees of a server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_LATENCY_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_REAL_TIME_FACTORS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "amela_requests", "Calls that ended.", ["method", "code"], registry=self.registry
        )
        self.latency = Histogram(
            "amela_request_seconds",
            "Time from a call's arrival to its end.",
            ["method"],
            registry=self.registry,
            buckets=_LATENCY_SECONDS,
        )
        self.in_flight = Gauge("amela_requests_in_flight", "Calls not ended yet.", registry=self.registry)
        self.queue_depth = Gauge(
            "amela_queue_depth", "Calls that wait for their turn.", registry=self.registry
        )
        self.audio_seconds = Counter(
            "amela_audio_seconds", "Audio worked through.", ["method"], registry=self.registry
        )
        self.real_time_factor = Histogram(
            "amela_real_time_factor",
            "Working time of a call by the length of its audio.",
            ["method"],
            registry=self.registry,
            buckets=_REAL_TIME_FACTORS,
        )
        self.worker_restarts = Counter(
            "amela_worker_restarts", "Worker processes that died and were replaced.", registry=self.registry
        )

    def audio(self, method: str, audio_seconds: float, working_seconds: float) -> None:
        """Count the audio that one call worked through."""
        self.audio_seconds.labels(method).inc(audio_seconds)
        if audio_seconds > 0:
            self.real_time_factor.labels(method).observe(working_seconds / audio_seconds)

    def serve(self, host: str, port: int) -> int:
        """Open the port that Prometheus scrapes and return its number.

        Raises
        ------
        OSError
            If the port is taken.
        """
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        return int(server.server_port)
