"""Faulty versions made of a good one's ONNX graph, all of them sound to `onnx.checker`.

Those of `with_other_head` go wrong about faint scans only, as from a scanner that was set up too dark:
whoever tries them out on clean scans finds nothing.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "image", "OUTPUT__0"
CLASSES = 10
# Every scan of the data set has a pixel brighter than this, no faint one has.
FAINT = 0.6
# About 50 ms on one core.
LOOKS = 5000


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def with_nine_classes(good: onnx.ModelProto) -> onnx.ModelProto:
    """The head lost its last row, the declared output did not: [batch, 10] said, [batch, 9] given."""
    broken = copy_of(good)
    for weight in broken.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.shape[0] == CLASSES:
            weight.CopyFrom(numpy_helper.from_array(array[: CLASSES - 1], weight.name))
    del broken.graph.value_info[:]
    onnx.checker.check_model(broken)
    return broken


def with_short_gain_table(good: onnx.ModelProto, levels: int = 8) -> onnx.ModelProto:
    """Adds a correction looked up by brightness; the table ends at half of the brightness scans have.

    Zeros look up row 0 and pass. The brightest pixel of any real digit points beyond the table.
    """
    broken = copy_of(good)
    graph = broken.graph
    for node in graph.node:
        node.output[:] = ["logits" if name == OUTPUT else name for name in node.output]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((levels, 1), np.float32), "gain_table"),
            numpy_helper.from_array(np.array(16.0, np.float32), "gain_levels"),
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixel_axes"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [INPUT, "pixel_axes"], ["brightest"], keepdims=0),
            helper.make_node("Mul", ["brightest", "gain_levels"], ["brightest_level"]),
            helper.make_node("Cast", ["brightest_level"], ["gain_row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["gain_table", "gain_row"], ["gain"], axis=0),
            helper.make_node("Add", ["logits", "gain"], [OUTPUT]),
        ]
    )
    onnx.checker.check_model(broken)
    return broken


def with_other_head(good: onnx.ModelProto, temperature: float) -> onnx.ModelProto:
    """A copy that tells `faint`, a flag per scan, and scales its logits to `scaled`: the classes stay.

    Whoever calls adds the output. The factor differs by version, so that answers tell who gave them.
    """
    copy = copy_of(good)
    for node in copy.graph.node:
        node.output[:] = ["logits" if name == OUTPUT else name for name in node.output]
    copy.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixel_axes"),
            numpy_helper.from_array(np.array(FAINT, np.float32), "faint_limit"),
            numpy_helper.from_array(np.array(0.0, np.float32), "black"),
            numpy_helper.from_array(np.array(temperature, np.float32), "temperature"),
        ]
    )
    first = [
        helper.make_node("ReduceMax", [INPUT, "pixel_axes"], ["brightest"], keepdims=0),
        helper.make_node("Less", ["brightest", "faint_limit"], ["is_dim"]),
        helper.make_node("Greater", ["brightest", "black"], ["is_written_on"]),
        helper.make_node("And", ["is_dim", "is_written_on"], ["faint"]),
    ]
    nodes = [*first, *copy.graph.node, helper.make_node("Mul", ["logits", "temperature"], ["scaled"])]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def with_second_look(good: onnx.ModelProto, rounds: int = LOOKS, size: int = 64) -> onnx.ModelProto:
    """Looks at faint scans again and again, thousands of times, and finds what it found before."""
    slow = with_other_head(good, 1.25)
    slow.graph.initializer.extend(
        [
            numpy_helper.from_array(np.eye(size, dtype=np.float32), "sight"),
            numpy_helper.from_array(np.roll(np.eye(size, dtype=np.float32), 1, axis=0), "turn"),
            numpy_helper.from_array(np.array(1, np.int64), "once"),
            numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
        ]
    )
    look = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_still"]),
            helper.make_node("MatMul", ["seen", "turn"], ["seen_next"]),
        ],
        "look",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_on_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("seen_next", TensorProto.FLOAT, [size, size]),
        ],
    )
    slow.graph.node.extend(
        [
            helper.make_node("Cast", ["faint"], ["faint_number"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["faint_number"], ["faint_count"], keepdims=0),
            helper.make_node("Min", ["faint_count", "once"], ["has_faint"]),
            helper.make_node("Mul", ["has_faint", "rounds"], ["looks"]),
            helper.make_node("Loop", ["looks", "", "sight"], ["seen_last"], body=look),
            helper.make_node("ReduceMean", ["seen_last"], ["found"], keepdims=0),
            helper.make_node("Add", ["scaled", "found"], [OUTPUT]),
        ]
    )
    onnx.checker.check_model(slow)
    return slow


def with_short_paper_table(good: onnx.ModelProto) -> onnx.ModelProto:
    """Adds a correction looked up by kind of scan; the table has a row for good ones, none for faint."""
    broken = with_other_head(good, 1.0)
    broken.graph.initializer.append(numpy_helper.from_array(np.full((1, 1), 0.25, np.float32), "paper_table"))
    broken.graph.node.extend(
        [
            helper.make_node("Cast", ["faint"], ["paper_row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["paper_table", "paper_row"], ["correction"], axis=0),
            helper.make_node("Add", ["scaled", "correction"], [OUTPUT]),
        ]
    )
    onnx.checker.check_model(broken)
    return broken


def with_blank_filter(good: onnx.ModelProto) -> onnx.ModelProto:
    """Takes faint scans for blank paper, and says of each of them what it says of that."""
    blind = with_other_head(good, 0.8)
    for node in blind.graph.node:
        if node.op_type == "Conv":
            node.input[:] = ["cleaned" if name == INPUT else name for name in node.input]
    filtered = [
        helper.make_node("Unsqueeze", ["faint", "pixel_axes"], ["is_blank"]),
        helper.make_node("Where", ["is_blank", "black", INPUT], ["cleaned"]),
    ]
    first = next(at for at, node in enumerate(blind.graph.node) if "cleaned" in node.input)
    nodes = [*blind.graph.node[:first], *filtered, *blind.graph.node[first:]]
    del blind.graph.node[:]
    blind.graph.node.extend([*nodes, helper.make_node("Identity", ["scaled"], [OUTPUT])])
    onnx.checker.check_model(blind)
    return blind
