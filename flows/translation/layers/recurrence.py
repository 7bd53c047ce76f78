"""Recurrent layers over (Seq, Batch, C, 1, 1): simple, GRU, and LSTM in one or both directions.

ONNX's recurrent operators do what Core ML's do, with other orders: LSTM gates lie as input, output,
forget, cell; GRU gates as update, reset, hidden. A layer's second and later inputs are the states
before the first step, its second and later outputs the states after the last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.translation.layers.layer import Inconsistent, Layer, NoCounterpart, Outputs, translates
from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.weights import is_stored
from serving.core.datatypes import Array

_CLIP = 50.0  # Core ML bounds what goes into every activation so
_FIXED = {  # numbers that recurrent layers use where none are stored
    "linear": ("Affine", (1.0, 0.0)),
    "sigmoid": ("Sigmoid", (0.0, 0.0)),
    "tanh": ("Tanh", (0.0, 0.0)),
    "ReLU": ("Relu", (0.0, 0.0)),
    "scaledTanh": ("ScaledTanh", (1.7159, 2 / 3)),
    "sigmoidHard": ("HardSigmoid", (0.2, 0.5)),
}


@translates("simpleRecurrent")
def simple(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    weights = layer.weights("weightMatrix", params.outputVectorSize, params.inputVectorSize)
    recursion = layer.weights("recursionMatrix", params.outputVectorSize, params.outputVectorSize)
    bias = layer.weights("biasVector", params.outputVectorSize) if params.hasBiasVector else None
    cell = _Cell(tape, layer, [params.activation], params.reverseInput)
    return cell.run("RNN", [weights], [recursion], None if bias is None else [bias], states=1)


@translates("gru")
def gru(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    size, width = params.outputVectorSize, params.inputVectorSize
    gates = ("updateGate", "resetGate", "outputGate")
    weights = [layer.weights(f"{gate}WeightMatrix", size, width) for gate in gates]
    recursions = [layer.weights(f"{gate}RecursionMatrix", size, size) for gate in gates]
    biases = [layer.weights(f"{gate}BiasVector", size) for gate in gates] if params.hasBiasVectors else None
    cell = _Cell(tape, layer, params.activations, params.reverseInput)
    return cell.run("GRU", weights, recursions, biases, states=1)


@translates("uniDirectionalLSTM")
def lstm(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    return _lstm(tape, layer, [params.weightParams], params.activations, bool(params.reverseInput))


@translates("biDirectionalLSTM")
def bidirectional_lstm(tape: Tape, layer: Layer) -> Outputs:
    """Forward states come first, then backward ones; outputs of both lie side by side."""
    params = layer.params
    if len(params.weightParams) != 2:
        raise Inconsistent(f"holds the weights of {len(params.weightParams)} directions instead of 2")
    activations = [*params.activationsForwardLSTM, *params.activationsBackwardLSTM]
    return _lstm(tape, layer, params.weightParams, activations, False)


def _lstm(
    tape: Tape, layer: Layer, stored: Sequence[Any], activations: Sequence[Any], reverse: bool
) -> Outputs:
    shared = layer.params.params
    _check_cell_clip(layer, shared)
    cell = _Cell(tape, layer, activations, reverse, directions=len(stored))
    sides = [_LstmWeights(layer, one, shared) for one in stored]
    return cell.run(
        "LSTM",
        [matrix for side in sides for matrix in side.matrices("WeightMatrix", layer.params.inputVectorSize)],
        [
            matrix
            for side in sides
            for matrix in side.matrices("RecursionMatrix", layer.params.outputVectorSize)
        ],
        [vector for side in sides for vector in side.biases()],
        states=2,
        peepholes=[vector for side in sides for vector in side.peepholes()],
        coupled=bool(shared.coupledInputAndForgetGate),
    )


def _check_cell_clip(layer: Layer, shared: Any) -> None:
    """ONNX bounds no cell. A bounded block input moves it by at most 1 a step, so that the usual bound
    of 50 is not met in 50 steps, nor later unless the gates stay fully open."""
    if shared.cellClipThreshold and shared.cellClipThreshold < _CLIP:
        raise NoCounterpart(f"bounds its cell to {shared.cellClipThreshold:g}; ONNX has no such bound")


class _LstmWeights:
    """One direction's weights, gate by gate in ONNX's order."""

    _GATES = ("inputGate", "outputGate", "forgetGate", "blockInput")

    def __init__(self, layer: Layer, stored: Any, shared: Any) -> None:
        self._layer, self._stored, self._shared = layer, stored, shared
        self._size = layer.params.outputVectorSize

    def matrices(self, suffix: str, width: int) -> list[Array]:
        return [self._matrix(gate, suffix, width) for gate in self._GATES]

    def _matrix(self, gate: str, suffix: str, width: int) -> Array:
        """A coupled layer has no use for its forget gate's weights and need not store them."""
        field = f"{gate}{suffix}"
        coupled = gate == "forgetGate" and self._shared.coupledInputAndForgetGate
        if coupled and not is_stored(getattr(self._stored, field)):
            return np.zeros((self._size, width), np.float32)
        return self._layer.weights(field, self._size, width, params=self._stored)

    def biases(self) -> list[Array]:
        forgets = 1.0 if self._shared.forgetBias else 0.0
        vectors = []
        for gate in self._GATES:
            extra = np.full(self._size, forgets if gate == "forgetGate" else 0.0, np.float32)
            coupled = gate == "forgetGate" and self._shared.coupledInputAndForgetGate
            field = f"{gate}BiasVector"
            if not self._shared.hasBiasVectors or (coupled and not is_stored(getattr(self._stored, field))):
                vectors.append(extra)
            else:
                vectors.append(self._layer.weights(field, self._size, params=self._stored) + extra)
        return vectors

    def peepholes(self) -> list[Array]:
        if not self._shared.hasPeepholeVectors:
            return []
        return [
            self._layer.weights(f"{gate}PeepholeVector", self._size, params=self._stored)
            for gate in ("inputGate", "outputGate", "forgetGate")
        ]


class _Cell:
    """One recurrent layer being written: its input and states in, the operator, its outputs out."""

    def __init__(
        self, tape: Tape, layer: Layer, activations: Sequence[Any], reverse: bool, directions: int = 1
    ) -> None:
        self._tape, self._layer = tape, layer
        self._size = int(layer.params.outputVectorSize)
        self._directions = directions
        self._direction = "bidirectional" if directions == 2 else "reverse" if reverse else "forward"
        self._activations = [_activation(one) for one in activations]

    def run(
        self,
        operator: str,
        weights: Sequence[Array],
        recursions: Sequence[Array],
        biases: Sequence[Array] | None,
        states: int,
        peepholes: Sequence[Array] = (),
        coupled: bool = False,
    ) -> Outputs:
        tape = self._tape
        before = self._states(states)
        operands: list[Tensor | None] = [self._sequence(), self._stacked(weights), self._stacked(recursions)]
        operands += [self._biases(biases), None, *before]
        if peepholes:
            operands += [self._vector(peepholes)]
        results = tape.add_many(
            operator, *operands, outputs=1 + states, **self._attributes(operator, coupled)
        )
        return self._outputs(results[0], results[1:])

    def _attributes(self, operator: str, coupled: bool) -> dict[str, Any]:
        """Names and numbers are listed for every activation, whether it takes numbers or not."""
        expected = {"RNN": 1, "GRU": 2, "LSTM": 3}[operator] * self._directions
        if len(self._activations) != expected:
            raise Inconsistent(f"names {len(self._activations)} activations instead of {expected}")
        attributes: dict[str, Any] = {
            "hidden_size": self._size,
            "direction": self._direction,
            "activations": [name for name, _ in self._activations],
            "activation_alpha": [numbers[0] for _, numbers in self._activations],
            "activation_beta": [numbers[1] for _, numbers in self._activations],
            "clip": _CLIP,
        }
        if operator == "LSTM":
            attributes["input_forget"] = int(coupled)
        return attributes

    def _sequence(self) -> Tensor:
        x, width = self._layer.x, int(self._layer.params.inputVectorSize)
        if x.rank != 5:
            raise Inconsistent(
                f"takes an input of shape [sequence, batch, {width}, 1, 1], not {list(x.shape)}"
            )
        return self._tape.reshape(x, [self._tape.size(x, 0), self._tape.size(x, 1), width])

    def _states(self, kinds: int) -> list[Tensor | None]:
        """One tensor of shape (directions, batch, size) for each kind of state, or None for zeros.

        A layer lists all forward states before the backward ones.
        """
        given = self._layer.inputs[1:]
        if not given:
            return [None] * kinds
        if len(given) != kinds * self._directions:
            raise Inconsistent(f"has {len(given)} states instead of {kinds * self._directions}")
        flat = [self._tape.reshape(one, [1, -1, self._size]) for one in given]
        joined = []
        for kind in range(kinds):
            sides = flat[kind::kinds]
            joined.append(sides[0] if len(sides) == 1 else self._tape.add("Concat", *sides, axis=0))
        return list(joined)

    def _stacked(self, matrices: Sequence[Array]) -> Tensor:
        """(directions, gates * size, width)."""
        wide = np.concatenate([np.asarray(matrix, np.float32) for matrix in matrices])
        return self._tape.constant(wide.reshape(self._directions, -1, wide.shape[-1]), "gates")

    def _vector(self, vectors: Sequence[Array]) -> Tensor:
        wide = np.concatenate([np.asarray(vector, np.float32) for vector in vectors])
        return self._tape.constant(wide.reshape(self._directions, -1), "gates")

    def _biases(self, vectors: Sequence[Array] | None) -> Tensor | None:
        """ONNX adds a second bias with the recursion; Core ML has one."""
        if vectors is None:
            return None
        wide = np.concatenate([np.asarray(one, np.float32) for one in vectors]).reshape(self._directions, -1)
        return self._tape.constant(np.concatenate([wide, np.zeros_like(wide)], axis=1), "biases")

    def _outputs(self, every: Tensor, last: Sequence[Tensor]) -> Outputs:
        """(Seq, directions, B, size) as (Seq or 1, B, directions * size, 1, 1), and the states."""
        tape, params = self._tape, self._layer.params
        whole = params.params.sequenceOutput if hasattr(params, "params") else params.sequenceOutput
        steps = every if whole else tape.unsqueeze(last[0], 0)
        sides = tape.transpose(steps, [0, 2, 1, 3])
        dims = [tape.size(sides, 0), tape.size(sides, 1), self._directions * self._size, 1, 1]
        outputs = [tape.reshape(sides, dims)]
        for side in range(self._directions):
            for state in last:
                one = state if self._directions == 1 else self._side(state, side)
                outputs.append(tape.unsqueeze(one, -2, -1))
        return outputs[: len(self._layer.outputs)]

    def _side(self, state: Tensor, side: int) -> Tensor:
        tape = self._tape
        return tape.add("Slice", state, tape.ints(side), tape.ints(side + 1), tape.ints(0))


def _activation(stored: Any) -> tuple[str, tuple[float, float]]:
    """ONNX's name, and its two numbers."""
    kind = stored.WhichOneof("NonlinearityType")
    if kind not in _FIXED:
        raise NoCounterpart(f"uses the activation '{kind}', which no recurrent layer can")
    name, numbers = _FIXED[kind]
    chosen = getattr(stored, kind)
    if kind in ("scaledTanh", "sigmoidHard") and (chosen.alpha or chosen.beta):
        return name, (chosen.alpha, chosen.beta)
    return name, numbers
