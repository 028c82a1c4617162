"""Calls AMELA's speech services: one recording, or a manifest of millions over all servers there are."""

import os

# gRPC's core reads this when it is first imported. What it would write to standard error of broken
# connections and refused certificates comes as `CallError`, with the name of the server.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from amela_client.backlog import Outcome, Task
from amela_client.client import AmelaClient
from amela_client.endpoint import Trust
from amela_client.errors import (
    CallError,
    ClientError,
    DiscoveryError,
    JournalError,
    LaunchError,
    ManifestError,
    MergeError,
    MixedModelsError,
    NoServersError,
    OutputError,
    ScoreError,
    SetupError,
    SlurmError,
    SubmissionError,
)
from amela_client.journal import Journal, RunKey
from amela_client.local import LocalServerError, local_servers
from amela_client.manifest import Entry, Fault, Manifest
from amela_client.merge import merge_results
from amela_client.mirror import Mirror
from amela_client.requests import (
    detect_request,
    encode_request,
    resynthesize_request,
    synthesize_request,
    transcribe_request,
)
from amela_client.results import (
    FrameProbabilities,
    Gpu,
    Model,
    PieceFailure,
    ServerStatus,
    SpeechEvent,
    SpeechSegment,
    SpeechStatistics,
    Transcript,
    TranscriptSegment,
    VoiceActivity,
    Word,
)
from amela_client.run import RunSummary, run_manifest
from amela_client.services import ASR, STS, VAD
from amela_client.stages import Transcription, VoiceDetection
from amela_client.sts_stages import Encoding, Resynthesis, Synthesis
from amela_client.sync import SyncAmelaClient
from amela_client.synthesized import SynthesizedAudio
from amela_client.units import Units

__all__ = [
    "ASR",
    "STS",
    "VAD",
    "AmelaClient",
    "CallError",
    "ClientError",
    "DiscoveryError",
    "Encoding",
    "Entry",
    "Fault",
    "FrameProbabilities",
    "Gpu",
    "Journal",
    "JournalError",
    "LaunchError",
    "LocalServerError",
    "Manifest",
    "ManifestError",
    "MergeError",
    "Mirror",
    "MixedModelsError",
    "Model",
    "NoServersError",
    "Outcome",
    "OutputError",
    "PieceFailure",
    "Resynthesis",
    "RunKey",
    "RunSummary",
    "ScoreError",
    "ServerStatus",
    "SetupError",
    "SlurmError",
    "SpeechEvent",
    "SpeechSegment",
    "SpeechStatistics",
    "SubmissionError",
    "SyncAmelaClient",
    "Synthesis",
    "SynthesizedAudio",
    "Task",
    "Transcript",
    "TranscriptSegment",
    "Transcription",
    "Trust",
    "Units",
    "VoiceActivity",
    "VoiceDetection",
    "Word",
    "detect_request",
    "encode_request",
    "local_servers",
    "merge_results",
    "resynthesize_request",
    "run_manifest",
    "synthesize_request",
    "transcribe_request",
]
