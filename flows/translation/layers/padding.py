"""Adding elements around a tensor."""

from flows.translation.layers.convolution import flat
from flows.translation.layers.layer import Inconsistent, Layer, NoCounterpart, Outputs, borders, translates
from flows.translation.layers.tape import Tape, Tensor

_MODES = {"constant": "constant", "reflection": "reflect", "replication": "edge"}


@translates("padding")
def spatial(tape: Tape, layer: Layer) -> Outputs:
    """Around the last two axes."""
    kind = layer.params.WhichOneof("PaddingType") or "constant"
    x = layer.require_rank(2)
    amounts = [(0, 0)] * (x.rank - 2) + [*borders(layer.params.paddingAmounts)]
    if kind == "reflection":
        _check_reflection(x, amounts)
    value = tape.number(layer.params.constant.value) if kind == "constant" else None
    return tape.add("Pad", x, tape.ints(*flat(amounts)), value, mode=_MODES[kind])


def _check_reflection(x: Tensor, amounts: list[tuple[int, int]]) -> None:
    for dim, edge in zip(x.shape, amounts, strict=True):
        if isinstance(dim, int) and max(edge) >= max(dim, 1):
            raise Inconsistent(f"reflects {max(edge)} elements of an axis that has {dim}")


@translates("constantPad")
def constant(tape: Tape, layer: Layer) -> Outputs:
    """Pairs (before, after) for every axis; or, in the mode for it, the sizes to reach."""
    params, x = layer.params, layer.x
    value = tape.number(params.value)
    if len(layer.inputs) > 1:
        if params.padToGivenOutputSizeMode:
            raise NoCounterpart("computes the sizes to pad to")
        return _computed(tape, x, layer.inputs[1], value)
    stored = [int(amount) for amount in params.padAmounts]
    if len(stored) != 2 * x.rank:
        raise Inconsistent(f"has {len(stored)} amounts for an input of rank {x.rank}")
    amounts = list(zip(stored[::2], stored[1::2], strict=True))
    if params.padToGivenOutputSizeMode:
        amounts = [_missing(dim, edge) for dim, edge in zip(x.shape, amounts, strict=True)]
    return tape.add("Pad", x, tape.ints(*flat(amounts)), value, mode="constant")


def _missing(dim: int | str, sizes: tuple[int, int]) -> tuple[int, int]:
    """The padding that brings a dimension to the one size of the two that is set."""
    before, after = sizes
    if before and after:
        raise Inconsistent("sets a size to reach on both sides of an axis")
    if not before and not after:
        return 0, 0
    if isinstance(dim, str):
        raise NoCounterpart("pads an axis of open size to a given size")
    missing = max(0, before + after - dim)
    return (missing, 0) if before else (0, missing)


def _computed(tape: Tape, x: Tensor, amounts: Tensor, value: Tensor) -> Tensor:
    """Pairs as they come, turned into all befores and then all afters."""
    pairs = tape.reshape(tape.integers(amounts), [x.rank, 2])
    ordered = tape.reshape(tape.transpose(pairs, [1, 0]), [2 * x.rank])
    shape = [tape.open_dim() for _ in range(x.rank)]
    return tape.shaped("Pad", x, ordered, value, shape=shape, mode="constant")
