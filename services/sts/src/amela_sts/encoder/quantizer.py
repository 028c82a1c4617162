"""Features to units: the nearest centre of a k-means."""

import torch
from torch import Tensor

from amela_sts.checkpoints.kmeans import Centres


class Quantizer:
    """Finds the nearest of some centres, the first one of equals.

    In double precision, so that the choice is that of exact arithmetic but where two centres are equally far
    to 15 digits, and does not hang on how many frames are asked for at once.

    Parameters
    ----------
    centres
        float32[clusters, dimensions].
    """

    def __init__(self, centres: Centres, device: torch.device) -> None:
        self._centres = torch.from_numpy(centres).to(device, torch.float64)
        self._squares = (self._centres**2).sum(dim=1)

    @property
    def vocabulary(self) -> int:
        """Number of centres."""
        return len(self._centres)

    @property
    def dim(self) -> int:
        """Width of a feature frame."""
        return self._centres.shape[1]

    @torch.inference_mode()
    def units(self, features: Tensor) -> Tensor:
        """Choose int64[frames] for float32[frames, dim]."""
        # ‖x − c‖² without ‖x‖², which is the same for every centre.
        distances = torch.addmm(self._squares, features.to(torch.float64), self._centres.T, alpha=-2.0)
        return distances.argmin(dim=1)
