"""From a list of layers to nodes, layer by layer; loops and branches hold lists of their own.

A scope maps Core ML's blob names to tensors. A blob may be written again, which is how loops carry
values; names inside the ONNX graph are always fresh, so that rewriting needs no special care.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto

from flows.translation.graph import Graph
from flows.translation.layers.layer import TRANSLATORS, Inconsistent, Layer, NoCounterpart
from flows.translation.layers.tape import Dim, Tape, Tensor, UnknownRank
from flows.translation.refusal import NO_TRANSLATION, TranslationRefused, Unsupported

Scope: TypeAlias = dict[str, Tensor]

CONTROL = ("loop", "branch")
_RANDOM = "draws random numbers, so no two of its answers would agree"
_OUT_OF_LOOP = "leaves a loop's round half-way, which ONNX's loops cannot"
# Kinds that are refused on sight; any other that is not known belongs to a newer specification.
REASONS = {
    "custom": "runs code of the model's author, which is not in the file",
    "loopBreak": _OUT_OF_LOOP,
    "loopContinue": _OUT_OF_LOOP,
    "randomNormalLike": _RANDOM,
    "randomNormalStatic": _RANDOM,
    "randomNormalDynamic": _RANDOM,
    "randomUniformLike": _RANDOM,
    "randomUniformStatic": _RANDOM,
    "randomUniformDynamic": _RANDOM,
    "randomBernoulliLike": _RANDOM,
    "randomBernoulliStatic": _RANDOM,
    "randomBernoulliDynamic": _RANDOM,
    "categoricalDistribution": _RANDOM,
}
_TRUE_FROM = 1e-6  # Core ML takes a condition's absolute value above this as true
_GENERALISATIONS = 4  # each opens at least one more dimension of a carried value
EXPORT_AGAIN = "the file is damaged or was put together wrongly: export it again"


def kind_of(stored: Any) -> str:
    """The layer's kind; one that this version of the specification does not know has none."""
    return stored.WhichOneof("layer") or "unknown"


def nested(stored: Any) -> Iterator[Any]:
    """The networks inside a loop or branch."""
    kind = kind_of(stored)
    fields = {"loop": ("conditionNetwork", "bodyNetwork"), "branch": ("ifBranch", "elseBranch")}
    for field in fields.get(kind, ()):
        yield getattr(getattr(stored, kind), field)


def every_layer(layers: Iterable[Any]) -> Iterator[Any]:
    """The layers and those inside them, in order."""
    for stored in layers:
        yield stored
        for network in nested(stored):
            yield from every_layer(network.layers)


def unsupported(layers: Iterable[Any]) -> list[Unsupported]:
    """The layers of a kind that has no translation at all."""
    return [
        Unsupported(
            _kind_for_people(stored), _first_output(stored), REASONS.get(kind_of(stored), NO_TRANSLATION)
        )
        for stored in every_layer(layers)
        if kind_of(stored) not in TRANSLATORS and kind_of(stored) not in CONTROL
    ]


def _kind_for_people(stored: Any) -> str:
    kind = kind_of(stored)
    return f"custom {stored.custom.className}".strip() if kind == "custom" else kind


def _first_output(stored: Any) -> str:
    return str(stored.output[0]) if stored.output else str(stored.name)


class Walk:
    """Translates lists of layers; `refused` gathers what has no counterpart, for one refusal of all."""

    def __init__(self, refused: list[Unsupported]) -> None:
        self._refused = refused

    def through(self, tape: Tape, layers: Iterable[Any], scope: Scope) -> None:
        """Adds every output to `scope`. A layer whose inputs were refused is passed over in silence."""
        for stored in layers:
            try:
                self._layer(tape, stored, scope)
            except (NoCounterpart, UnknownRank) as missing:
                self._refused.append(Unsupported(kind_of(stored), _first_output(stored), str(missing)))
            except (Inconsistent, onnx.shape_inference.InferenceError) as wrong:
                raise _damaged(stored, str(wrong)) from wrong

    def _layer(self, tape: Tape, stored: Any, scope: Scope) -> None:
        missing = [name for name in stored.input if name not in scope]
        if missing and self._refused:
            return
        if missing:
            raise _damaged(stored, f"reads '{missing[0]}', which nothing before it gives")
        kind = kind_of(stored)
        if kind not in CONTROL and not stored.output:
            raise Inconsistent("gives no output")
        if kind == "loop":
            self._loop(tape, stored, scope)
        elif kind == "branch":
            self._branch(tape, stored, scope)
        else:
            inputs = tuple(scope[name] for name in stored.input)
            layer = Layer(kind, stored.name, getattr(stored, kind), inputs, tuple(stored.output))
            results = TRANSLATORS[kind](tape, layer)
            outputs = (results,) if isinstance(results, Tensor) else tuple(results)
            if len(outputs) < len(layer.outputs):
                raise Inconsistent(f"names {len(layer.outputs)} outputs of {len(outputs)}")
            scope.update(zip(layer.outputs, outputs, strict=False))

    def _loop(self, tape: Tape, stored: Any, scope: Scope) -> None:
        """Blobs that exist before and are written inside are carried from one round to the next."""
        loop = stored.loop
        inside = [*every_layer(loop.conditionNetwork.layers), *every_layer(loop.bodyNetwork.layers)]
        carried = _written(inside, scope)
        if not carried:
            return  # nothing that it computes can be seen from outside
        before = dict(scope)
        condition = self._condition(tape, loop, before)
        shapes = self._settled_shapes(tape, loop, scope, carried)
        body = Graph(tape.graph)
        self._round(Tape(body, tape), loop, scope, carried, shapes)
        limit = _limit(tape, loop, [scope[name] for name in stored.input])
        operands = [limit, condition, *(scope[name].name for name in carried)]
        names = tape.graph.add_many("Loop", *operands, outputs=len(carried), body=body.build(stored.name))
        scope.update({name: Tensor(one, shapes[name]) for name, one in zip(carried, names, strict=True)})

    def _condition(self, tape: Tape, loop: Any, scope: Scope) -> str:
        """Whether to begin, or once more, as a scalar; "" for a loop that only counts."""
        if not loop.conditionVar:
            return ""
        self.through(tape, loop.conditionNetwork.layers, scope)
        if loop.conditionVar not in scope:
            raise Inconsistent(f"depends on '{loop.conditionVar}', which its condition does not give")
        return _truth(tape, scope[loop.conditionVar]).name

    def _settled_shapes(
        self, tape: Tape, loop: Any, scope: Scope, carried: list[str]
    ) -> dict[str, tuple[Dim, ...]]:
        """Shapes that hold before the first round and after every round, found by writing it on trial.

        What a trial stores is used by nothing and pruned from the finished model.
        """
        shapes = {name: scope[name].shape for name in carried}
        for _ in range(_GENERALISATIONS):
            trial = Tape(Graph(tape.graph), tape)
            after = Walk([])._round(trial, loop, scope, carried, shapes)
            wider = {name: _common(tape, shapes[name], after[name].shape) for name in carried}
            if wider == shapes:
                return shapes
            shapes = wider
        raise NoCounterpart("carries values whose shape settles on nothing")

    def _round(
        self, tape: Tape, loop: Any, scope: Scope, carried: list[str], shapes: dict[str, tuple[Dim, ...]]
    ) -> Scope:
        """Writes one round as the body of ONNX's Loop; gives the carried values after it."""
        graph = tape.graph
        graph.input(graph.fresh("round"), TensorProto.INT64, [])
        graph.input(graph.fresh("condition"), TensorProto.BOOL, [])
        inner = dict(scope)
        for name in carried:
            given = graph.input(graph.fresh(name), TensorProto.FLOAT, shapes[name])
            inner[name] = Tensor(given, shapes[name])
        self.through(tape, loop.bodyNetwork.layers, inner)
        again = self._condition(tape, loop, inner)
        source = again or graph.constant(np.bool_(True))
        graph.output(graph.fresh("again"), source, TensorProto.BOOL, [])
        for name in carried:
            graph.output(graph.fresh(name), inner[name].name, TensorProto.FLOAT, None)
        return inner

    def _branch(self, tape: Tape, stored: Any, scope: Scope) -> None:
        """Blobs that both sides write, or one side writes anew, go on from here."""
        sides = [stored.branch.ifBranch, stored.branch.elseBranch]
        layers = [list(every_layer(side.layers)) for side in sides]
        both = [name for name in _names(layers[0]) if name in _names(layers[1])]
        given = list(dict.fromkeys([*both, *_written([*layers[0], *layers[1]], scope)]))
        if not given:
            return
        if not stored.input:
            raise Inconsistent("has no condition")
        bodies, shapes = [], []
        for side in sides:
            body, inner = Graph(tape.graph), dict(scope)
            self.through(Tape(body, tape), side.layers, inner)
            if any(name not in inner for name in given):
                return
            for name in given:
                body.output(body.fresh(name), inner[name].name, TensorProto.FLOAT, None)
            bodies.append(body.build(stored.name))
            shapes.append([inner[name].shape for name in given])
        truth = _truth(tape, scope[stored.input[0]]).name
        names = tape.graph.add_many(
            "If", truth, outputs=len(given), then_branch=bodies[0], else_branch=bodies[1]
        )
        for place, name in enumerate(given):
            scope[name] = Tensor(names[place], _common(tape, shapes[0][place], shapes[1][place]))


def _damaged(stored: Any, reason: str) -> TranslationRefused:
    kind, output = _kind_for_people(stored), _first_output(stored)
    return TranslationRefused(
        f"layer '{stored.name}' of kind '{kind}' (output '{output}') {reason}",
        operator=kind,
        variable=output,
        next_step=EXPORT_AGAIN,
    )


def _names(layers: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(name for stored in layers for name in stored.output))


def _written(layers: Iterable[Any], scope: Scope) -> list[str]:
    return [name for name in _names(layers) if name in scope]


def _common(tape: Tape, one: tuple[Dim, ...], other: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """A shape that both have; a dimension in which they differ is open."""
    if len(one) != len(other):
        raise NoCounterpart(f"gives shape {list(one)} at one time and {list(other)} at another")
    return tuple(
        left if left == right or isinstance(left, str) else tape.open_dim()
        for left, right in zip(one, other, strict=True)
    )


def _truth(tape: Tape, value: Tensor) -> Tensor:
    single = tape.reshape(value, []) if value.rank else value
    return tape.add("Greater", tape.add("Abs", single), tape.number(_TRUE_FROM))


def _limit(tape: Tape, loop: Any, inputs: list[Tensor]) -> str:
    """The number of rounds as a scalar; "" for as long as the condition holds."""
    if inputs:
        return tape.integers(tape.reshape(inputs[0], [])).name
    if loop.maxLoopIterations:
        return tape.graph.integer(int(loop.maxLoopIterations))
    return ""
