"""The shell that every server shares; a service brings its engine and its methods."""

from amela_common.server.admission import Admission
from amela_common.server.life import run
from amela_common.server.metrics import Metrics
from amela_common.server.service import Runtime, Service
from amela_common.server.settings import ServerSettings

__all__ = ["Admission", "Metrics", "Runtime", "ServerSettings", "Service", "run"]
