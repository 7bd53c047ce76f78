"""Recurrent layers by the formulas of MIL's documentation: gates, directions, peepholes, activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from serving.core.datatypes import Array
from tests.flows.translation.programs import Single, answered

STEPS, BATCH, WIDTH, HIDDEN = 4, 2, 3, 5
_RANDOM = np.random.default_rng(2)


def _noise(*shape: int) -> Array:
    return (_RANDOM.normal(size=shape) * 0.5).astype(np.float32)


X, H, C = _noise(STEPS, BATCH, WIDTH), _noise(BATCH, HIDDEN), _noise(BATCH, HIDDEN)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "linear": lambda x: x,
    "scaled_tanh": lambda x: 1.7159 * np.tanh(2 / 3 * x),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """One direction's, gates stacked in MIL's order."""

    inner: Array
    outer: Array
    bias: Array

    def gates(self, x: Array, hidden: Array) -> list[Array]:
        total = x @ self.inner.T + hidden @ self.outer.T + self.bias
        return np.split(total, len(self.inner) // HIDDEN, axis=-1)


def _weights(gates: int) -> Weights:
    return Weights(_noise(gates * HIDDEN, WIDTH), _noise(gates * HIDDEN, HIDDEN), _noise(gates * HIDDEN))


def _lstm(
    x: Array,
    hidden: Array,
    cell: Array,
    weights: Weights,
    names: tuple[str, str, str],
    peephole: Array | None,
) -> tuple[Array, Array, Array]:
    """Input, forget, output and cell gates; the peephole lets the first three see the cell."""
    gate, inner, outer = (ACTIVATIONS[name] for name in names)
    first, second, third = np.split(peephole if peephole is not None else np.zeros(3 * HIDDEN), 3)
    steps = []
    for one in x:
        i, f, o, z = weights.gates(one, hidden)
        i, f = gate(i + first * cell), gate(f + second * cell)
        cell = f * cell + i * inner(z)
        hidden = gate(o + third * cell) * outer(cell)
        steps.append(hidden)
    return np.stack(steps), hidden, cell


def _gru(
    x: Array, hidden: Array, weights: Weights, names: tuple[str, str], after: Array | None = None
) -> Array:
    """Reset, new and update gates; `after`, the input's bias, means that reset comes after the product."""
    gate, new = (ACTIVATIONS[name] for name in names)
    (wr, wo, wz), (rr, ro, rz) = np.split(weights.inner, 3), np.split(weights.outer, 3)
    br, bo, bz = np.split(weights.bias, 3)
    ir, io, iz = np.split(after if after is not None else np.zeros(3 * HIDDEN), 3)
    steps = []
    for one in x:
        reset = gate(one @ wr.T + hidden @ rr.T + br + ir)
        update = gate(one @ wz.T + hidden @ rz.T + bz + iz)
        if after is None:
            fresh = new(one @ wo.T + (reset * hidden) @ ro.T + bo)
        else:
            fresh = new(one @ wo.T + io + reset * (hidden @ ro.T + bo))
        hidden = (1 - update) * fresh + update * hidden
        steps.append(hidden)
    return np.stack(steps)


def _check(case: Single, wanted: list[Array]) -> None:
    given = answered(case)
    assert [one.shape for one in given] == [one.shape for one in wanted]
    assert max(float(np.abs(one - other).max()) for one, other in zip(wanted, given, strict=True)) <= 1e-5


def _parameters(weights: Weights, **more: Any) -> dict[str, Any]:
    return {"weight_ih": weights.inner, "weight_hh": weights.outer, "bias": weights.bias, **more}


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("peephole", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        ("sigmoid", "tanh", "tanh"),
        ("hard_sigmoid", "relu", "linear"),
        ("sigmoid", "scaled_tanh", "hard_sigmoid"),
    ],
)
def test_lstm_follows_its_formula_when_translated(
    sequence: bool, direction: str, peephole: bool, names: tuple[str, str, str]
) -> None:
    """Both directions answer in the order in which they read."""
    weights, peep = _weights(4), _noise(3 * HIDDEN) if peephole else None
    steps, hidden, cell = _lstm(X if direction == "forward" else X[::-1], H, C, weights, names, peep)
    more = dict(zip(("recurrent_activation", "cell_activation", "activation"), names, strict=True))
    case = Single(
        "lstm",
        {"x": X, "initial_h": H, "initial_c": C},
        _parameters(
            weights,
            direction=direction,
            output_sequence=sequence,
            **more,
            **({} if peep is None else {"peephole": peep}),
        ),
    )
    _check(case, [steps if sequence else steps[-1:], hidden, cell])


@pytest.mark.parametrize("sequence", [True, False])
def test_lstm_reads_both_ways_when_bidirectional(sequence: bool) -> None:
    """The backward half lies beside the forward one, aligned with the input."""
    there, back = _weights(4), _weights(4)
    names = ("sigmoid", "tanh", "tanh")
    ahead = _lstm(X, H, C, there, names, None)
    behind = _lstm(X[::-1], C, H, back, names, None)
    steps = np.concatenate([ahead[0], behind[0][::-1]], axis=-1)
    states = [np.concatenate([one, other], axis=-1) for one, other in zip(ahead[1:], behind[1:], strict=True)]
    case = Single(
        "lstm",
        {"x": X, "initial_h": np.hstack([H, C]), "initial_c": np.hstack([C, H])},
        _parameters(
            there,
            weight_ih_back=back.inner,
            weight_hh_back=back.outer,
            bias_back=back.bias,
            direction="bidirectional",
            output_sequence=sequence,
        ),
    )
    _check(case, [steps if sequence else states[0][None], *states])


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("names", [("sigmoid", "tanh"), ("tanh", "sigmoid"), ("hard_sigmoid", "relu")])
def test_gru_follows_its_formula_when_translated(
    sequence: bool, direction: str, names: tuple[str, str]
) -> None:
    """The reset gate comes before the product, unlike torch's."""
    weights = _weights(3)
    steps = _gru(X if direction == "forward" else X[::-1], H, weights, names)
    more = dict(zip(("recurrent_activation", "activation"), names, strict=True))
    case = Single(
        "gru",
        {"x": X, "initial_h": H},
        _parameters(weights, direction=direction, output_sequence=sequence, **more),
    )
    _check(case, [steps if sequence else steps[-1:], steps[-1]])


def test_gru_resets_after_the_product_when_asked_to() -> None:
    """The iOS 18 version can be torch's GRU, with two biases."""
    weights, inner = _weights(3), _noise(3 * HIDDEN)
    steps = _gru(X, H, weights, ("sigmoid", "tanh"), inner)
    more = {"reset_after": True, "input_bias": inner, "output_sequence": True}
    _check(Single("gru", {"x": X, "initial_h": H}, _parameters(weights, **more), 18), [steps, steps[-1]])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn_follows_its_formula_when_translated(direction: str, activation: str) -> None:
    """One gate, one activation."""
    weights, hidden, steps = _weights(1), H, []
    for one in X if direction == "forward" else X[::-1]:
        hidden = ACTIVATIONS[activation](weights.gates(one, hidden)[0])
        steps.append(hidden)
    more = {"direction": direction, "activation": activation, "output_sequence": True}
    _check(
        Single("rnn", {"x": X, "initial_h": H}, _parameters(weights, **more)),
        [np.stack(steps), hidden],
    )
