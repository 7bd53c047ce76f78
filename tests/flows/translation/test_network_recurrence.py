"""Recurrent layers against their equations in Core ML's specification, step by step in numpy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import special

from serving.core.datatypes import Array
from tests.flows.translation.network_models import built

_RNG = np.random.default_rng(9)
_IN, _OUT, _STEPS, _BATCH = 3, 4, 5, 2
_X = _RNG.standard_normal((_STEPS, _BATCH, _IN)).astype(np.float32)
_H0, _C0 = _RNG.standard_normal((2, _BATCH, _OUT)).astype(np.float32)
_TOLERANCE = 1e-5

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "SIGMOID": special.expit,
    "TANH": np.tanh,
    "LINEAR": np.array,
    "RELU": lambda x: np.maximum(x, 0),
    "SCALED_TANH": lambda x: 1.7159 * np.tanh(2 / 3 * x),
    "SIGMOID_HARD": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}


def _matrices(gates: int, width: int) -> list[Array]:
    return [(_RNG.standard_normal((_OUT, width)) * 0.4).astype(np.float32) for _ in range(gates)]


def _vectors(gates: int) -> list[Array]:
    return [_RNG.standard_normal(_OUT).astype(np.float32) for _ in range(gates)]


def _five(x: Array) -> Array:
    """(..., C) as (S, B, C, 1, 1)."""
    return (x if x.ndim == 3 else x[None])[..., None, None]


def _answers(add: Callable[[Any], None], outputs: Sequence[str], states: Sequence[Array]) -> list[Array]:
    """Outputs without their trailing axes of 1."""
    feeds = {"x": _five(_X)} | {f"s{place}": _five(one) for place, one in enumerate(states)}
    network = built(add, {name: one.shape for name, one in feeds.items()}, outputs)
    return [answer[..., 0, 0] for answer in network.run(**feeds)]


def _clip(x: Array) -> Array:
    return np.clip(x, -50, 50)


def _backward(x: Array, reverse: bool) -> Array:
    return x[::-1] if reverse else x


@pytest.mark.parametrize("activation", _FUNCTIONS)
@pytest.mark.parametrize("reverse", [False, True])
def test_simple_recurrence_follows_its_equation_when_translated(activation: str, reverse: bool) -> None:
    """Every activation, both directions; the whole sequence and the last state."""
    (weights,), (recursion,), (bias,) = _matrices(1, _IN), _matrices(1, _OUT), _vectors(1)
    whole, last = _answers(
        lambda b: b.add_simple_rnn(
            "r", recursion, weights, bias, _OUT, _IN, activation, ["x", "s0"], ["y", "h"], True, reverse
        ),
        ["y", "h"],
        [_H0],
    )
    state, steps = _H0, []
    for x in _backward(_X, reverse):
        state = _FUNCTIONS[activation](_clip(x @ weights.T + state @ recursion.T + bias))
        steps.append(state)
    np.testing.assert_allclose(whole, _backward(np.stack(steps), reverse), atol=_TOLERANCE)
    np.testing.assert_allclose(last[0], state, atol=_TOLERANCE)


@pytest.mark.parametrize("inner", ["SIGMOID", "SIGMOID_HARD"])
@pytest.mark.parametrize("biased", [False, True])
def test_gru_resets_before_the_recursion_when_translated(inner: str, biased: bool) -> None:
    """The reset gate weighs the state before its matrix, which torch does after."""
    weights, recursions, biases = _matrices(3, _IN), _matrices(3, _OUT), _vectors(3)
    stored = biases if biased else None
    answer = _answers(
        lambda b: b.add_gru(
            "g",
            recursions,
            weights,
            stored,
            _OUT,
            _IN,
            ["x", "s0"],
            ["y", "h"],
            "TANH",
            inner,
        ),
        ["y", "h"],
        [_H0],
    )
    gate, added = _FUNCTIONS[inner], biases if biased else [np.zeros(_OUT)] * 3
    state = _H0
    for x in _X:
        update = gate(x @ weights[0].T + state @ recursions[0].T + added[0])
        reset = gate(x @ weights[1].T + state @ recursions[1].T + added[1])
        output = np.tanh(x @ weights[2].T + (state * reset) @ recursions[2].T + added[2])
        state = (1 - update) * output + update * state
    for one in answer:
        np.testing.assert_allclose(one[0], state, atol=_TOLERANCE)


class _Lstm:
    """Weights of one direction in the builder's order of gates: input, forget, output, cell."""

    def __init__(self) -> None:
        self.weights, self.recursions = _matrices(4, _IN), _matrices(4, _OUT)
        self.biases, self.peepholes = _vectors(4), _vectors(3)

    def run(
        self, xs: Array, h: Array, c: Array, peep: bool = False, coupled: bool = False, forget: bool = False
    ) -> tuple[Array, Array, Array]:
        """All outputs and the last states."""
        p_i, p_f, p_o = self.peepholes if peep else [np.zeros(_OUT)] * 3
        outputs = []
        for x in xs:
            before = [
                x @ w.T + h @ r.T + b
                for w, r, b in zip(self.weights, self.recursions, self.biases, strict=True)
            ]
            entered = special.expit(before[0] + p_i * c)
            kept = 1 - entered if coupled else special.expit(before[1] + p_f * c + (1 if forget else 0))
            c = c * kept + entered * np.tanh(before[3])
            h = np.tanh(c) * special.expit(before[2] + p_o * c)
            outputs.append(h)
        return np.stack(outputs), h, c


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("peep", "coupled", "forget"),
    [(False, False, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_lstm_follows_its_equations_when_translated(
    reverse: bool, peep: bool, coupled: bool, forget: bool
) -> None:
    """Peepholes, coupled gates and the forget bias, in both directions."""
    side = _Lstm()
    outputs = ["y", "h", "c"]
    answer = _answers(
        lambda b: b.add_unilstm(
            "l",
            side.recursions,
            side.weights,
            side.biases,
            _OUT,
            _IN,
            ["x", "s0", "s1"],
            outputs,
            peep=side.peepholes if peep else None,
            output_all=True,
            forget_bias=forget,
            coupled_input_forget_gate=coupled,
            reverse_input=reverse,
        ),
        outputs,
        [_H0, _C0],
    )
    whole, h, c = side.run(_backward(_X, reverse), _H0, _C0, peep, coupled, forget)
    np.testing.assert_allclose(answer[0], _backward(whole, reverse), atol=_TOLERANCE)
    np.testing.assert_allclose(answer[1][0], h, atol=_TOLERANCE)
    np.testing.assert_allclose(answer[2][0], c, atol=_TOLERANCE)


@pytest.mark.parametrize("whole", [False, True])
def test_lstm_lays_directions_side_by_side_when_in_both(whole: bool) -> None:
    """The backward outputs stand at the time of their last input; states come forward first."""
    forward, backward = _Lstm(), _Lstm()
    outputs = ["y", "h", "c", "hb", "cb"]
    states = [_H0, _C0, _C0 * 0.5, _H0 * 0.5]
    answer = _answers(
        lambda b: b.add_bidirlstm(
            "l",
            forward.recursions,
            forward.weights,
            forward.biases,
            backward.recursions,
            backward.weights,
            backward.biases,
            _OUT,
            _IN,
            ["x", "s0", "s1", "s2", "s3"],
            outputs,
            peep=forward.peepholes,
            peep_back=backward.peepholes,
            output_all=whole,
        ),
        outputs,
        states,
    )
    ahead, h, c = forward.run(_X, states[0], states[1], peep=True)
    behind, hb, cb = backward.run(_X[::-1], states[2], states[3], peep=True)
    steps = np.concatenate([ahead, behind[::-1]], -1)
    expected = steps if whole else np.concatenate([h, hb], -1)[None]
    np.testing.assert_allclose(answer[0], expected, atol=_TOLERANCE)
    for actual, state in zip(answer[1:], (h, c, hb, cb), strict=True):
        np.testing.assert_allclose(actual[0], state, atol=_TOLERANCE)


def test_lstm_starts_from_zeros_when_given_no_states() -> None:
    """A layer may read only its sequence and give only its output."""
    side = _Lstm()
    answer = _answers(
        lambda b: b.add_unilstm("l", side.recursions, side.weights, side.biases, _OUT, _IN, ["x"], ["y"]),
        ["y"],
        [],
    )
    zeros = np.zeros((_BATCH, _OUT))
    np.testing.assert_allclose(
        answer[0][0], side.run(_X, zeros, zeros, False, False, False)[1], atol=_TOLERANCE
    )
