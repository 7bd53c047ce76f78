"""Recurrent layers. MIL and ONNX order the gates differently, and MIL's `reverse` keeps processing order.

Gates: an LSTM of MIL has input, forget, output, cell; of ONNX input, output, forget, cell. A GRU of MIL
has reset, new, update; of ONNX update, reset, new.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flows.translation.call import Call, Names
from flows.translation.operators.slicing import flipped
from serving.core.datatypes import Array

_ACTIVATIONS: dict[str, tuple[str, float, float]] = {
    # ONNX name, alpha, beta; 0 where the function takes none
    "sigmoid": ("Sigmoid", 0.0, 0.0),
    "tanh": ("Tanh", 0.0, 0.0),
    "relu": ("Relu", 0.0, 0.0),
    "hard_sigmoid": ("HardSigmoid", 0.2, 0.5),
    "sigmoid_hard": ("HardSigmoid", 0.2, 0.5),
    "scaled_tanh": ("ScaledTanh", 1.7159, 2 / 3),
    "linear": ("Affine", 1.0, 0.0),
}
_LSTM_GATES = (0, 2, 1, 3)
_GRU_GATES = (2, 0, 1)
_RNN_GATES = (0,)
_SUFFIXES = ("", "_back")


def _lstm(call: Call) -> Names:
    if call.has("clip"):
        raise call.refused("clips its cell, which ONNX does at another place")
    suffixes = _suffixes(call)
    weights = [_weight(call, name, suffixes, _LSTM_GATES) for name in ("weight_ih", "weight_hh")]
    bias = _bias(call, [None] * len(suffixes), [f"bias{end}" for end in suffixes], _LSTM_GATES)
    states = [_state(call, name, len(suffixes)) for name in ("initial_h", "initial_c")]
    peepholes = [_peepholes(call, suffixes)] if call.has("peephole") else []
    sequence, hidden, cell = call.graph.add_many(
        "LSTM",
        _source(call),
        *weights,
        bias,
        "",
        *states,
        *peepholes,
        outputs=3,
        hint=call.outputs[0].name,
        **_attributes(call, ("recurrent_activation", "cell_activation", "activation"), len(suffixes)),
    )
    last = [_joined(call, name) for name in (hidden, cell)]
    return _all_or_last(call, sequence, last[0]), *last


def _gru(call: Call) -> Names:
    weights = [_weight(call, name, ("",), _GRU_GATES) for name in ("weight_ih", "weight_hh")]
    bias = _bias(call, ["input_bias"], ["bias"], _GRU_GATES)
    sequence, hidden = call.graph.add_many(
        "GRU",
        _source(call),
        *weights,
        bias,
        "",
        _state(call, "initial_h", 1),
        outputs=2,
        hint=call.outputs[0].name,
        linear_before_reset=int(call.flag("reset_after")),
        **_attributes(call, ("recurrent_activation", "activation"), 1),
    )
    last = _joined(call, hidden)
    return _all_or_last(call, sequence, last), last


def _rnn(call: Call) -> Names:
    weights = [_weight(call, name, ("",), _RNN_GATES) for name in ("weight_ih", "weight_hh")]
    sequence, hidden = call.graph.add_many(
        "RNN",
        _source(call),
        *weights,
        _bias(call, [None], ["bias"], _RNN_GATES),
        "",
        _state(call, "initial_h", 1),
        outputs=2,
        hint=call.outputs[0].name,
        **_attributes(call, ("activation",), 1),
    )
    last = _joined(call, hidden)
    return _all_or_last(call, sequence, last), last


def _suffixes(call: Call) -> tuple[str, ...]:
    return _SUFFIXES if call.text("direction", "forward") == "bidirectional" else _SUFFIXES[:1]


def _source(call: Call) -> str:
    """The input in processing order: `reverse` runs forward over the flipped sequence and stays flipped."""
    source = call.tensor("x")
    return flipped(call, source, [0]) if call.text("direction", "forward") == "reverse" else source


def _hidden(call: Call) -> int:
    return int(call.array("weight_hh").shape[1])


def _ordered(values: Array, gates: Sequence[int]) -> Array:
    """Rows of the gates in ONNX's order."""
    parts = np.split(values, len(gates))
    reordered: Array = np.concatenate([parts[gate] for gate in gates])
    return reordered


def _weight(call: Call, name: str, suffixes: Sequence[str], gates: Sequence[int]) -> str:
    values = [_ordered(np.asarray(call.value(f"{name}{end}")), gates) for end in suffixes]
    return call.graph.constant(np.stack(values), name)


def _bias(call: Call, inner: Sequence[str | None], outer: Sequence[str], gates: Sequence[int]) -> str:
    """ONNX keeps the input's biases and then the state's, per direction."""
    size = len(gates) * _hidden(call)
    rows = []
    for names in zip(inner, outer, strict=True):
        parts = [
            np.zeros(size, np.float32)
            if name is None or not call.has(name)
            else _ordered(call.array(name).astype(np.float32), gates)
            for name in names
        ]
        rows.append(np.concatenate(parts))
    return call.graph.constant(np.stack(rows), "bias")


def _peepholes(call: Call, suffixes: Sequence[str]) -> str:
    """Of the input, forget and output gates; ONNX lists input, output, forget."""
    values = [_ordered(call.array(f"peephole{end}").astype(np.float32), (0, 2, 1)) for end in suffixes]
    return call.graph.constant(np.stack(values), "peephole")


def _state(call: Call, name: str, directions: int) -> str:
    """(batch, directions * hidden) as ONNX's (directions, batch, hidden)."""
    shape = call.graph.ints(0, directions, _hidden(call))
    return call.add("Transpose", call.add("Reshape", call.tensor(name), shape), perm=[1, 0, 2])


def _joined(call: Call, state: str) -> str:
    """(directions, batch, hidden) as MIL's (batch, directions * hidden)."""
    return call.add("Reshape", call.add("Transpose", state, perm=[1, 0, 2]), call.graph.ints(0, -1))


def _all_or_last(call: Call, sequence: str, last: str) -> str:
    """Every step's state as (steps, batch, directions * hidden), or the last one's alone."""
    if not call.flag("output_sequence"):
        return call.add("Unsqueeze", last, call.graph.ints(0))
    steps = call.add("Transpose", sequence, perm=[0, 2, 1, 3])
    return call.add("Reshape", steps, call.graph.ints(0, 0, -1))


def _attributes(call: Call, names: Sequence[str], directions: int) -> dict[str, Any]:
    defaults = {"recurrent_activation": "sigmoid", "cell_activation": "tanh", "activation": "tanh"}
    chosen = [call.text(name, defaults[name]).lower() for name in names] * directions
    unknown = [name for name in chosen if name not in _ACTIVATIONS]
    if unknown:
        raise call.refused(f"has the activation '{unknown[0]}', which has no ONNX counterpart")
    functions = [_ACTIVATIONS[name] for name in chosen]
    return {
        "hidden_size": _hidden(call),
        "direction": "bidirectional" if directions == 2 else "forward",
        "activations": [name for name, _, _ in functions],
        # Only functions that take them read from these lists, in order.
        "activation_alpha": [alpha for name, alpha, _ in functions if name in _WITH_CONSTANTS] or None,
        "activation_beta": [beta for name, _, beta in functions if name in _WITH_CONSTANTS] or None,
    }


_WITH_CONSTANTS = ("HardSigmoid", "ScaledTanh", "Affine")

TRANSLATORS: dict[str, Callable[[Call], Names]] = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}
