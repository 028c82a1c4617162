"""The convolutions in front of HuBERT's transformer: what they are, and what they do to lengths."""

import ast
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True)
class Convolutions:
    """Unpadded convolutions after one another, as (channels, taps, stride)."""

    layers: tuple[tuple[int, int, int], ...]

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return reduce(lambda hop, layer: hop * layer[2], self.layers, 1)

    @property
    def field(self) -> int:
        """Samples that one frame sees: the shortest audio that has one."""
        field, hop = 1, 1
        for _, taps, stride in self.layers:
            field += (taps - 1) * hop
            hop *= stride
        return field

    def frames(self, samples: int, layers: int | None = None) -> int:
        """Count the frames that come out of so many samples, after all or the first `layers`."""
        for _, taps, stride in self.layers[:layers]:
            samples = (samples - taps) // stride + 1 if samples >= taps else 0
        return samples


def parse(expression: str) -> Convolutions:
    """Read ``[(512,10,5)] + [(512,3,2)] * 4`` without evaluating it, which fairseq does.

    Raises
    ------
    ValueError
        If it is anything but lists of whole numbers, added and multiplied, or describes no convolutions.
    """
    try:
        layers = _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a list of convolutions: {expression[:80]!r}") from error
    if (
        not isinstance(layers, list)
        or not layers
        or not all(
            isinstance(layer, tuple) and len(layer) == 3 and all(isinstance(n, int) and n > 0 for n in layer)
            for layer in layers
        )
    ):
        raise ValueError(f"not a list of (channels, taps, stride): {expression[:80]!r}")
    return Convolutions(tuple(layers))


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool) and abs(number) < 1 << 20:
            return number
        case ast.Tuple(elts=items):
            return tuple(map(_value, items))
        case ast.List(elts=items):
            return list(map(_value, items))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = _value(left), _value(right)
            if isinstance(one, list) and isinstance(other, list):
                return one + other
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _value(left), _value(right)
            if isinstance(one, list) and isinstance(other, int) and len(one) * other <= 100:
                return one * other
    raise ValueError(f"not part of a list of convolutions: {ast.unparse(node)[:80]!r}")
