"""The token-and-duration transducer's loss on any device: NeMo's own runs on CUDA alone.

Xu et al., Efficient Sequence Transduction by Jointly Predicting Tokens and Durations, 2023: equation 7,
for durations of one frame and more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_IMPOSSIBLE = -1e4


def tdt_loss(
    joint: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, durations: Sequence[int]
) -> Tensor:
    """Compute the mean negative log-likelihood of a batch.

    Parameters
    ----------
    joint
        float32[batch, frames, labels + 1, tokens + 1 + durations], not normalised; the blank comes
        after the tokens.
    targets
        int64[batch, labels].
    durations
        How many frames each of the joint's last outputs goes on by, all at least 1.
    """
    token_log_probs = joint[..., : -len(durations)].log_softmax(-1)
    duration_log_probs = joint[..., -len(durations) :].log_softmax(-1)
    blank = token_log_probs[..., -1]
    wanted = targets[:, None, :, None].expand(-1, joint.shape[1], -1, -1)
    label = token_log_probs[:, :, :-1].gather(-1, wanted).squeeze(-1)

    batch, frames, places = blank.shape
    start = blank.new_full((batch, places), _IMPOSSIBLE)
    start[:, 0] = 0
    # alphas[t][b, u]: of having said u labels before frame t. One more frame than there is: the end.
    alphas = [start]
    for t in range(1, frames + max(durations)):
        ways = []
        for index, duration in enumerate(durations):
            source = t - duration
            if not 0 <= source < frames:
                continue
            moved = alphas[source] + duration_log_probs[:, source, :, index]
            ways.append(moved + blank[:, source])
            said = moved[:, :-1] + label[:, source]
            ways.append(torch.nn.functional.pad(said, (1, 0), value=_IMPOSSIBLE))
        alphas.append(torch.stack(ways).logsumexp(0) if ways else torch.full_like(start, _IMPOSSIBLE))
    rows = torch.arange(batch)
    return -torch.stack(alphas)[lengths, rows, target_lengths].mean()
