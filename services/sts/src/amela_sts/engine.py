"""The models of one server, on one device: windows of audio to units, windows of units to audio."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from amela_common.errors import ConfigError
from numpy.typing import NDArray

from amela_sts import compat
from amela_sts.checkpoints.kmeans import load_centres
from amela_sts.checkpoints.model_files import ModelFiles
from amela_sts.encoder.hubert import HubertEncoder
from amela_sts.encoder.loading import PosConv, load_hubert
from amela_sts.encoder.quantizer import Quantizer
from amela_sts.front import CONTEXT_SECONDS, MIDDLE_SECONDS, AudioShape
from amela_sts.units import Ints
from amela_sts.vocoder.codehifigan import CodeHiFiGAN, Utterance
from amela_sts.vocoder.config import VocoderConfig, read_config
from amela_sts.vocoder.generator import load_generator
from amela_sts.voices import VoiceIndex, Voices, read_names
from amela_sts.windows import Window

# Raised whenever the code here begins to give other units or samples for the same model.
RESULTS_VERSION = 1


class EncodeJob(NamedTuple):
    """A window of samples to encode."""

    window: Window
    dense: bool = False


class Encoded(NamedTuple):
    """The units of a window's frames, and their features if they were asked for: float32[frames, dim]."""

    units: Ints
    features: NDArray[np.float32] | None


class SynthesizeJob(NamedTuple):
    """A window of units, one for each frame, to speak."""

    window: Window
    voice: VoiceIndex


@dataclass(frozen=True)
class Vocoder:
    """A vocoder and what it can be asked for."""

    network: CodeHiFiGAN
    config: VocoderConfig
    voices: Voices


class StsEngine:
    """Computes batches. Everything happens on the thread that calls, which must always be the same.

    Parameters
    ----------
    trust
        Whether the operator vouches for unpublished checkpoints.

    Raises
    ------
    ConfigError
        If a part cannot be loaded or does not go with the others.
    """

    def __init__(
        self, files: ModelFiles, device: torch.device, *, trust: bool = False, pos_conv: PosConv = "exact"
    ) -> None:
        compat.import_legacy()
        # TensorFloat-32, which cuDNN uses unless told not to, would make units depend on the GPU.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        hubert = load_hubert(files.dense, trust=trust, pos_conv_policy=pos_conv)
        if files.layer > hubert.depth:
            raise ConfigError(f"layer {files.layer}: {files.dense} has {hubert.depth} layers")
        centres, _ = load_centres(files.kmeans, trust=trust)
        self.name = files.name
        self.warnings = hubert.warnings
        self.encoder = HubertEncoder(hubert, files.layer, device)
        self.quantizer = Quantizer(centres, device)
        if self.quantizer.dim != hubert.dim:
            raise ConfigError(
                f"{files.kmeans}: centres of width {self.quantizer.dim} for features of width {hubert.dim}"
                f" of {files.dense}: they belong to another model"
            )
        self.vocoder, vocoder_digest = _load_vocoder(files, self.quantizer.vocabulary, device, trust)
        facts = (
            RESULTS_VERSION,
            hubert.sha256,
            hubert.warnings,
            files.layer,
            hashlib.sha256(centres.tobytes()).hexdigest(),
            vocoder_digest,
            (MIDDLE_SECONDS, CONTEXT_SECONDS),
        )
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @cached_property
    def shape(self) -> AudioShape:
        """What recordings must be made to before they are encoded."""
        return AudioShape(self.encoder.sample_rate, self.encoder.convolutions, self.encoder.normalize)

    @property
    def unit_rate(self) -> float:
        """Units a second."""
        return self.encoder.sample_rate / self.encoder.convolutions.hop

    def encode(self, jobs: Sequence[EncodeJob]) -> list[Encoded]:
        """Encode windows together; one that is part of a longer recording has been normalised before."""
        features = self.encoder.features(
            [torch.from_numpy(job.window.items) for job in jobs], [job.window.whole for job in jobs]
        )
        kept = [
            frames[job.window.skip : job.window.skip + job.window.keep]
            for frames, job in zip(features, jobs, strict=True)
        ]
        units = self.quantizer.units(torch.cat(kept)).cpu().numpy()
        ends = np.cumsum([len(frames) for frames in kept])[:-1]
        return [
            Encoded(own, frames.cpu().numpy() if job.dense else None)
            for own, frames, job in zip(np.split(units, ends), kept, jobs, strict=True)
        ]

    def synthesize(self, jobs: Sequence[SynthesizeJob]) -> list[NDArray[np.float32]]:
        """Speak windows together: float32[keep × hop] each."""
        assert self.vocoder is not None
        hop = self.vocoder.config.hop
        spoken = self.vocoder.network.synthesize(
            [Utterance(torch.from_numpy(job.window.items), *job.voice) for job in jobs]
        )
        return [
            samples[job.window.skip * hop : (job.window.skip + job.window.keep) * hop].cpu().numpy()
            for samples, job in zip(spoken, jobs, strict=True)
        ]

    def predict_durations(self, window: Window) -> Ints:
        """Predict the durations of a window's deduplicated units, in frames."""
        assert self.vocoder is not None
        durations = self.vocoder.network.durations(torch.from_numpy(window.items))
        kept: Ints = durations[window.skip : window.skip + window.keep].cpu().numpy()
        return kept

    def canary(self) -> None:
        """Send a second of noise through all of it.

        Raises
        ------
        ConfigError
            If what comes out cannot be right.
        """
        noise = np.random.default_rng(0).normal(0, 0.1, self.encoder.sample_rate).astype(np.float32)
        frames = self.encoder.convolutions.frames(len(noise))
        [encoded] = self.encode([EncodeJob(Window(noise, 0, frames, whole=True), dense=True)])
        assert encoded.features is not None
        if len(encoded.units) != frames or not np.isfinite(encoded.features).all():
            raise ConfigError(
                f"{self.name}: features of noise are not finite: the checkpoint must be damaged"
            )
        if self.vocoder is not None:
            [samples] = self.synthesize(
                [SynthesizeJob(Window(encoded.units, 0, frames, whole=True), VoiceIndex())]
            )
            if len(samples) != frames * self.vocoder.config.hop or not np.isfinite(samples).all():
                raise ConfigError(
                    f"{self.name}: the vocoder made {len(samples)} samples of {frames} units, or some that"
                    " are not finite: its weights are damaged"
                )


def _load_vocoder(
    files: ModelFiles, vocabulary: int, device: torch.device, trust: bool
) -> tuple[Vocoder | None, object]:
    if files.vocoder is None or files.vocoder_config is None:
        return None, None
    config = read_config(files.vocoder_config)
    if config.vocabulary != vocabulary:
        raise ConfigError(
            f"{files.vocoder_config}: a vocoder for {config.vocabulary} units, but {files.kmeans} makes"
            f" {vocabulary}: they belong to different models"
        )
    voices = Voices(
        read_names(files.speakers, config.speakers, "speakers"),
        read_names(files.styles, config.styles, "styles"),
    )
    generator, sha256 = load_generator(files.vocoder, config, trust=trust)
    digest = (sha256, json.dumps(config.options, sort_keys=True), voices)
    return Vocoder(CodeHiFiGAN(generator, config, device), config, voices), digest
