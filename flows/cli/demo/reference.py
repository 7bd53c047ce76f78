"""What each version answers to each scan, found without the server: from the registry's own files.

Measured once by the demonstration, read by its traffic to tell whether an answer is who it says it is.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.cli.demo.settings import MODEL
from flows.cli.errors import CommandFailed
from flows.settings import FlowSettings
from serving.core.model import VersionRef
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from serving.store.artifacts import ArtifactCache
from serving.store.registry import Registry, connect

INPUT, OUTPUT = "image", "OUTPUT__0"

_SCANS = 64
_FAINT = slice(1, None, 2)
_CACHE_BYTES = 1 << 30
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """`scans` is (count, 1, 8, 8); `outputs` holds (count, 10) per version, no numbers where it raises."""

    scans: Floats
    outputs: Mapping[str, Floats]

    def matches(self, version: str, rows: slice, answer: Floats) -> bool:
        """Whether `answer`, (rows, 10), is what `version` answers to those scans."""
        expected = self.outputs.get(version)
        return expected is not None and _is_close(answer, expected[rows])

    def tells_apart(self) -> bool:
        """Whether no answer of one version could pass for another's."""
        return not any(
            _is_close(one[scan], other[scan])
            for one, other in itertools.permutations(self.outputs.values(), 2)
            for scan in range(len(self.scans))
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        named: dict[str, Any] = {f"version:{name}": outputs for name, outputs in self.outputs.items()}
        np.savez(path, scans=self.scans, **named)


@dataclass(frozen=True, slots=True)
class References:
    """The files of the references that the traffic reads."""

    folder: Path

    @property
    def plain(self) -> Path:
        return self.folder / "plain.npz"

    @property
    def inverted(self) -> Path:
        return self.folder / "inverted.npz"

    @property
    def mixed(self) -> Path:
        return self.folder / "mixed.npz"


def read_reference(path: Path) -> Reference:
    with np.load(path, allow_pickle=False) as stored:
        named = {name.removeprefix("version:"): stored[name] for name in stored.files}
    return Reference(named.pop("scans"), named)


def measure(settings: FlowSettings, versions: Iterable[str], cache: Path, scans: Floats) -> Reference:
    """Download and run each version here. Raises `CommandFailed` when answers would not tell them apart."""
    with connect(settings) as client:
        registry = Registry(client, settings.serves)
        artifacts = ArtifactCache(cache, client, registry, _CACHE_BYTES)
        roots = {v: artifacts.fetch(registry.version(VersionRef(MODEL, v))).root for v in versions}
    reference = Reference(scans, {version: _outputs(root, scans) for version, root in roots.items()})
    if not reference.tells_apart():
        step = "report this: the digits example trains differently on this machine"
        raise CommandFailed("the example's versions answer alike, so no swap could be seen", next_step=step)
    return reference


def real_scans() -> Floats:
    """Digits as they were scanned, (count, 1, 8, 8), each pixel from 0 to 1."""
    # A second of import that only the demonstration needs.
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    scans: Floats = (images[:_SCANS] / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return scans


def inverted(scans: Floats) -> Floats:
    """White on black becomes black on white, as from a scanner that was set up wrongly."""
    return np.float32(1.0) - scans


def half_faint(scans: Floats) -> Floats:
    """Every second scan at half its brightness, as from a scanner that was set up too dark."""
    mixed = scans.copy()
    mixed[_FAINT] *= np.float32(0.5)
    return mixed


def with_raising(mixed: Reference, clean: Reference) -> Reference:
    """Those of `clean` too, as versions that answer no faint scan: nothing passes for their answer."""
    outputs = dict(mixed.outputs)
    for version, answers in clean.outputs.items():
        outputs[version] = answers.copy()
        outputs[version][_FAINT] = np.nan
    return Reference(mixed.scans, outputs)


def _outputs(root: Path, scans: Floats) -> Floats:
    model = load(inspect_artifact(root), threads=1)
    try:
        return model.predict({INPUT: scans})[OUTPUT]
    finally:
        model.close()


def _is_close(answer: Floats, expected: Floats) -> bool:
    return answer.shape == expected.shape and np.allclose(answer, expected, rtol=_RELATIVE, atol=_ABSOLUTE)
