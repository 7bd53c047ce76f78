"""A version in the shape of Triton's model configuration."""

import pytest

from serving.core.datatypes import DTYPES
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact
from serving.protocol.configuration import Batching, configuration
from tests.versions import ScriptedModel, adds, loaded


def test_dims_are_whole_shapes_when_rows_are_not_joined() -> None:
    """Triton reads a largest batch of 0 so."""
    told = configuration(loaded("2"), ["1", "2"], None)
    assert (told["max_batch_size"], "dynamic_batching" in told) == (0, False)
    assert told["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
    assert told["version_policy"] == {"specific": {"versions": [1, 2]}}


def test_dims_leave_out_the_batch_when_rows_are_joined() -> None:
    """And the longest wait is named."""
    told = configuration(loaded("2"), ["2"], Batching(32, 500))
    assert (told["max_batch_size"], told["input"][0]["dims"]) == (32, [3])
    assert told["dynamic_batching"] == {"max_queue_delay_microseconds": 500}


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_has_triton_s_name(datatype: str) -> None:
    """Text alone is called otherwise."""
    version = loaded("2")
    spec = TensorSpec("t", datatype, None)
    version.model = ScriptedModel(adds(0), (spec,), (spec,))
    told = configuration(version, ["2"], None)
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert told["input"] == told["output"] == [{"name": "t", "data_type": name, "dims": [-1]}]


@pytest.mark.parametrize("format", list(Format))
def test_every_format_has_a_backend(format: Format) -> None:
    """A new format must say what runs it."""
    version = loaded("2")
    root = version.artifact.root
    version.artifact = Artifact(root, format, root / "model")
    assert configuration(version, ["2"], None)["backend"]
