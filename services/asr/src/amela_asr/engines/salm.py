"""Canary-Qwen and its kin: a speech encoder in front of a large language model, by NeMo's SALM."""

import copy
from collections.abc import Hashable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from amela_common.batching.torch_device import TorchDevice
from amela_common.errors import ConfigError, RequestError

from amela_asr.engine import Capabilities, Options, Recognition
from amela_asr.engines.checkpoint import Checkpoint
from amela_asr.engines.languages import NAMES
from amela_asr.engines.nemo_recognizer import padded
from amela_asr.engines.quiet import quiet_import
from amela_asr.engines.recognizer import SAMPLE_RATE, Recognizer, Utterance
from amela_asr.engines.runaway import runs_away
from amela_asr.engines.salm_folder import check_salm_folder, weight_files
from amela_asr.fingerprint import fingerprint
from amela_asr.options import special_token

# Raised whenever this module makes something else of the same audio.
_RESULTS_VERSION = 1
# The model card's: what it is trained on. Beyond, its text is empty or wrong.
_MAX_PIECE_SECONDS = 40.0
# The prompt that Canary-Qwen is trained with.
_PROMPT = "Transcribe the following:"
# 40 s of fast speech are 160 words.
_MAX_NEW_TOKENS = 256


def load_salm(
    checkpoint: Checkpoint, device: TorchDevice, precision: str, languages: Sequence[str]
) -> Recognizer:
    """Load a SALM's folder.

    Parameters
    ----------
    languages
        What may be asked for, as BCP 47 tags: the model itself does not say.

    Raises
    ------
    ConfigError
        If something is missing in the folder or does not fit together.
    """
    check_salm_folder(checkpoint.path)
    unknown = [language for language in languages if language not in NAMES]
    if unknown:
        raise ConfigError(f"--languages {','.join(unknown)}: take some of {', '.join(NAMES)}")
    with quiet_import():
        from nemo.collections.speechlm2.models import SALM  # noqa: PLC0415 - takes half a minute
    try:
        model = SALM.from_pretrained(str(checkpoint.path))
    except Exception as error:
        # Whatever a broken file makes transformers, OmegaConf or PyTorch raise.
        if device.is_out_of_memory(error) or device.is_broken(error):
            raise
        raise ConfigError(
            f"--model {checkpoint.name}: NeMo cannot load it as a SALM ({type(error).__name__}: {error})"
        ) from error
    return _SalmRecognizer(model, checkpoint, device, precision, languages)


class _SalmRecognizer:
    name = "salm"
    max_piece_seconds = _MAX_PIECE_SECONDS

    def __init__(
        self,
        model: Any,
        checkpoint: Checkpoint,
        device: TorchDevice,
        precision: str,
        languages: Sequence[str],
    ) -> None:
        if model.sampling_rate != SAMPLE_RATE:
            raise ConfigError(
                f"--model {checkpoint.name}: it works at {model.sampling_rate} Hz, not {SAMPLE_RATE} Hz"
            )
        dtype = device.precision(precision)
        self.model = checkpoint.name
        self.device = device
        self.warnings: tuple[str, ...] = ()
        self.capabilities = Capabilities(languages=tuple(languages), prompt=True, max_new_tokens=True)
        self.fingerprint = fingerprint(
            _RESULTS_VERSION, version("nemo_toolkit"), str(dtype), files=weight_files(checkpoint.path)
        )
        model.eval().requires_grad_(False)
        spectrogram = model.perception.preprocessor
        spectrogram.featurizer.dither = 0.0
        spectrogram.featurizer.pad_to = 0
        # Everything but the spectrogram's own arithmetic, which needs float32.
        featurizer = copy.deepcopy(spectrogram.featurizer)
        model.to(device.torch, dtype)
        spectrogram.featurizer = featurizer.to(device.torch)
        self._model = model
        self._special_tokens = {model.audio_locator_tag, *model.tokenizer.tokenizer.all_special_tokens}

    def kind(self, options: Options) -> Hashable:
        """All rows of a batch are written up to the same length."""
        return options.max_new_tokens

    def recognize(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        """Recognise a batch; a prompt that is none, or an output that does not stop, fails its clip alone."""
        refusals = [self._refusal(utterance.options.prompt or "") for utterance in batch]
        fit = [utterance for utterance, refusal in zip(batch, refusals, strict=True) if refusal is None]
        answers = iter(self._generate(fit) if fit else ())
        return [next(answers) if refusal is None else refusal for refusal in refusals]

    def _refusal(self, prompt: str) -> RequestError | None:
        # Models may have special tokens that do not look like any.
        found = next((token for token in self._special_tokens if token in prompt), None)
        return None if found is None else special_token(found)

    def _generate(self, batch: Sequence[Utterance]) -> list[Recognition | RequestError]:
        limit = batch[0].options.max_new_tokens or _MAX_NEW_TOKENS
        audio, lengths = padded(batch, self.device)
        with torch.inference_mode():
            rows = self._model.generate(
                prompts=[self._prompt(utterance.options) for utterance in batch],
                audios=audio,
                audio_lens=lengths,
                generation_config=self._generation(limit),
            )
        return [self._read(row) for row in rows.tolist()]

    def _prompt(self, options: Options) -> list[dict[str, str]]:
        prompt = options.prompt or _PROMPT
        language = (options.language or "en").lower()
        if options.prompt is None and language != "en":
            prompt = f"Transcribe the following in {NAMES[language]}:"
        return [{"role": "user", "content": f"{prompt} {self._model.audio_locator_tag}"}]

    def _generation(self, limit: int) -> Any:
        from transformers import GenerationConfig  # noqa: PLC0415 - comes with NeMo

        model = self._model
        return GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=model.text_bos_id,
            eos_token_id=model.text_eos_id,
            pad_token_id=model.text_pad_id,
            max_new_tokens=limit,
            do_sample=False,
        )

    def _read(self, row: list[int]) -> Recognition | RequestError:
        end = self._model.text_eos_id
        finished = end in row
        tokens = row[: row.index(end)] if finished else row
        text = self._model.tokenizer.ids_to_text(tokens).strip()
        fault = runs_away(tokens, finished)
        if fault is not None:
            return RequestError(
                "OUTPUT_RUNAWAY",
                f"the model's output runs away ({fault}): {text[:60]!r}…; a larger max_new_tokens or another"
                " prompt may help",
            )
        return Recognition(text)
