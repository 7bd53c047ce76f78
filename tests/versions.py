"""Loaded versions without a file behind them, for tests of what decides between versions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from serving.batcher import DEFAULT_LIMITS, BatchLimits
from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.model import Format, TensorSpec, VersionRef
from serving.formats.artifact import Artifact
from serving.formats.selftest import Basis, SelfTest, Verdict
from serving.pool import NOTHING_KNOWN, LoadedVersion, Loading, Provenance, VersionKey
from serving.promptness import Watchdog
from serving.store.record import ServedVersion

CACHE = Path("cache")
BORN_MS = 1_700_000_000_000
LOADED_AT = datetime(2026, 1, 1, tzinfo=UTC)

Answer = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(slots=True)
class ScriptedModel:
    """Takes `x` and answers `y`, both FP32 (batch, 3), as `answer` says."""

    answer: Answer
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 3)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (-1, 3)),)
    platform: str = "onnx_onnxv1"
    is_closed: bool = False

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert not self.is_closed
        return self.answer(inputs)

    def close(self) -> None:
        self.is_closed = True


class PromptModel(ScriptedModel):
    """One that may be asked on the event loop; what is scripted here never needs to be broken off."""

    def predict_interruptibly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.predict(inputs)

    def interrupt(self) -> None:
        raise AssertionError("nothing scripted runs for that long")


def adds(constant: float) -> Answer:
    return lambda inputs: {"y": inputs["x"] + np.float32(constant)}


def gives(array: Array) -> Answer:
    return lambda inputs: {"y": array}


def raises(inputs: Mapping[str, Array]) -> dict[str, Array]:
    raise RuntimeError("secret of the model")


def key(version: str, model: str = "digits", created_ms: int = BORN_MS) -> VersionKey:
    return VersionKey(VersionRef(model, version), created_ms)


def loaded(
    version: str,
    answer: Answer | None = None,
    *,
    model: str = "digits",
    created_ms: int = BORN_MS,
    loaded_at: datetime = LOADED_AT,
    loading: Loading = NOTHING_KNOWN,
    clock: Clock | None = None,
    watchdog: Watchdog | None = None,
    limits: BatchLimits = DEFAULT_LIMITS,
) -> LoadedVersion:
    """A version that adds its own number, unless `answer` says otherwise.

    With a `watchdog` it is asked on the event loop once it was quick often enough.
    """
    make = ScriptedModel if watchdog is None else PromptModel
    folder = CACHE / model / version
    root = folder / "files"
    return LoadedVersion(
        Provenance(
            key(version, model, created_ms), f"models:/m-{version}", f"digest-{version}", folder, None
        ),
        Artifact(root, Format.ONNX, root / "model.onnx"),
        make(answer or adds(float(version))),
        SelfTest(Verdict.PASSED, Basis.ZEROS, "scripted"),
        loaded_at,
        workers=2,
        loading=loading,
        batch_limits=limits,
        clock=clock,
        watchdog=watchdog,
    )


def served(version: str, created_ms: int = BORN_MS) -> ServedVersion:
    return ServedVersion(
        version, created_ms, f"models:/m-{version}", f"digest-{version}", f"digits/{version}"
    )
