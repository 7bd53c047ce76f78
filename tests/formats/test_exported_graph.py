"""The JSON of a program: a text in an unknown place, or of the wrong form for its place, is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.errors import ArtifactRefused
from serving.formats.exported_graph import operators, safe_program

LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def program(**graph_module: Any) -> dict[str, Any]:
    return {"schema_version": {"major": 8, "minor": 1}, "graph_module": graph_module}


def node(target: str) -> dict[str, Any]:
    return program(graph={"nodes": [{"target": target, "metadata": {"stack_trace": "anything"}}]})


def refusal(content: object) -> str:
    with pytest.raises(ArtifactRefused) as caught:
        safe_program(content, "model.pt2", 8)
    return str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.add.Tensor",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.prims.convert_element_type.default",
        "torch.ops.higher_order.cond",
        "_operator.add",
        "math.trunc",
        "torch.sym_max",
    ],
)
def test_program_passes_when_its_operator_computes(target: str) -> None:
    """Remarks are dropped on the way."""
    cleaned = safe_program(node(target), "model.pt2", 8)
    assert list(operators(cleaned)) == [target]
    assert cleaned["graph_module"]["graph"]["nodes"][0]["metadata"] == {}


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.mine.add.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.add",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.add.__call__",
        "torch.ops.aten.add.Tensor.__globals__",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.higher_order.executorch_call_delegate",
        "torch.load",
        "torch.hub.load",
        "_operator.methodcaller",
        "math.factorial",
        "#extension:op",
        "eval",
    ],
)
def test_program_is_refused_when_its_operator_is_not_known_to_compute(target: str) -> None:
    """By its name, wherever it is named."""
    assert f"uses operator '{target}'" in refusal(node(target))
    assert target in refusal(program(graph={"nodes": [{"arg": {"as_operator": target}}]}))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("name", "x = evil()"),
        ("as_name", "a.b"),
        ("forward_arg_names", "x=1"),
        ("parameter_name", 'a"] + evil()'),
        ("expr_str", "evil()"),
        ("in_spec", "[1, 2]"),
        ("buffer_name", "a.__class__.b"),
        ("class_fqn", "__torch__.A"),
        ("as_float", "1e3"),
        ("verifiers", "MINE"),
        ("an_unknown_key", "text"),
    ],
)
def test_program_is_refused_when_a_text_does_not_belong_there(key: str, text: str) -> None:
    """Alone or in a list."""
    assert repr(text)[1:-1] in refusal(program(graph={key: text})).replace('\\"', '"')
    assert refusal(program(graph={key: [text]}))


@pytest.mark.parametrize("key", ["as_custom_obj", "custom_obj", "token"])
def test_program_is_refused_when_it_holds_a_custom_object(key: str) -> None:
    """Its class would come from elsewhere."""
    assert f"an object of a custom class ({key})" in refusal(program(graph={key: {"name": "a"}}))


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        (LEAF, True),
        ({"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}, True),
        ({"type": "builtins.dict", "context": '["a", "b_1", 3]', "children_spec": [LEAF, LEAF, LEAF]}, True),
        ({"type": "builtins.dict", "context": '["a = evil()"]', "children_spec": [LEAF]}, False),
        (
            {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "os:a"}]', "children_spec": []},
            False,
        ),
        ({"type": "collections.namedtuple", "context": '"os.path"', "children_spec": [LEAF]}, False),
        ({"type": "collections.defaultdict", "context": "{}", "children_spec": []}, False),
        ({"type": "transformers.ModelOutput", "context": "null", "children_spec": [LEAF]}, False),
        ({"type": "builtins.tuple", "context": "[", "children_spec": []}, False),
    ],
)
def test_structure_passes_when_it_is_made_of_plain_containers(spec: object, allowed: bool) -> None:
    """Others are rebuilt by importing what they name."""
    content = program(module_call_graph=[{"fqn": "", "signature": {"in_spec": json.dumps([1, spec])}}])
    if allowed:
        safe_program(content, "model.pt2", 8)
    else:
        assert "inputs that are more than tensors" in refusal(content)


@pytest.mark.parametrize("name", ["token", "metadata", "device", "name", "as_device"])
def test_program_passes_when_a_tensor_is_called_like_a_field(name: str) -> None:
    """Names of tensors are the model's own."""
    tensor = {"dtype": 7, "sizes": [{"as_int": 2}], "device": {"type": "cuda", "index": 0}}
    cleaned = safe_program(program(graph={"tensor_values": {name: tensor}}), "model.pt2", 8)
    kept = cleaned["graph_module"]["graph"]["tensor_values"][name]
    assert (kept["sizes"], kept["device"]["type"]) == ([{"as_int": 2}], "cpu")


def test_program_loses_its_guards_when_cleaned() -> None:
    """They are Python source, and nothing that is needed."""
    content = program() | {"guards_code": ["evil()"]}
    assert safe_program(content, "model.pt2", 8)["guards_code"] == []


@pytest.mark.parametrize("symbol", ["u999999999999", "s0 + evil()", "S"])
def test_program_is_refused_when_a_range_is_of_no_symbol(symbol: str) -> None:
    """torch counts up to the number in a symbol's name."""
    limits = {symbol: {"min_val": 0, "max_val": 9}}
    assert "which is no symbol" in refusal(program() | {"range_constraints": limits})


def test_program_is_refused_when_it_is_nested_too_deep() -> None:
    """Deep enough that a recursive reader would fail."""
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    assert "nested more than" in refusal(program(graph=nested))


KEYS = st.sampled_from(
    [
        *("graph_module", "graph", "nodes", "target", "name", "expr_str", "in_spec", "as_string"),
        *("range_constraints", "module_call_graph", "schema_version", "major", "tensor_values", "device"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("[1, {}]")
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(graph=JSON, more=st.dictionaries(KEYS, JSON, max_size=4))
def test_program_is_refused_or_cleaned_when_it_is_any_json(graph: Any, more: dict[str, Any]) -> None:
    """No JSON makes the check itself fail, and what passes passes again unchanged."""
    content = more | program(graph=graph)
    try:
        cleaned = safe_program(content, "model.pt2", 8)
    except ArtifactRefused:
        return
    assert json.dumps(safe_program(cleaned, "model.pt2", 8)) == json.dumps(cleaned)
