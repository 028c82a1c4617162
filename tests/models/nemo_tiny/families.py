"""All models that are made while the tests run, by name."""

from pathlib import Path
from typing import Any

from tests.models.nemo_tiny.canary import make_canary, make_canary_flash, make_canary_v2
from tests.models.nemo_tiny.derived import FOLDER, make_transducers, with_decoding

_CTC_BEAM: dict[str, Any] = {
    "strategy": "beam_batch",
    "beam": {"beam_size": 4, "beam_alpha": None, "kenlm_path": None, "ngram_lm_model": None},
}
_TRANSDUCER_BEAM: dict[str, Any] = {"strategy": "beam", "beam": {"beam_size": 3}}
# Which leaves the best of them to us.
_WHOLE_BEAM: dict[str, Any] = {
    "strategy": "malsd_batch",
    "beam": {"beam_size": 3, "return_best_hypothesis": False},
}


def make_all(folder: Path) -> dict[str, Path]:
    """Write them into a folder; it takes some ten seconds."""
    rnnt, hybrid = make_transducers(folder)
    canaries = (make_canary(folder), make_canary_flash(folder), make_canary_v2(folder))
    beams = (
        with_decoding(FOLDER / "ctc-bpe.nemo", folder / "ctc-beam.nemo", _CTC_BEAM),
        with_decoding(FOLDER / "tdt.nemo", folder / "tdt-beam.nemo", _TRANSDUCER_BEAM),
        with_decoding(FOLDER / "tdt.nemo", folder / "tdt-greedy.nemo", {"strategy": "greedy"}),
        with_decoding(rnnt, folder / "rnnt-beams.nemo", _WHOLE_BEAM),
    )
    return {path.stem: path for path in (rnnt, hybrid, *canaries, *beams)}
