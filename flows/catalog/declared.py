"""What is said of a model file before it is looked into: its name, and all that its side file names.

Called by `flows.catalog.register`; whatever of it cannot be used refuses the file in one sentence.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.catalog.discover import Candidate
from flows.catalog.side_file import MLFLOW_SCHEMES, SideFile, inside, read_side_file
from serving.core.digest import file_sha256, tree_digest
from serving.core.errors import ArtifactRefused
from serving.formats.told import MAX_LABELS, Told

_MAX_LABEL_BYTES = 1 << 20
_PLACEHOLDER = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """`evaluation` is a file here or an address in MLflow. `side_digest` covers the side file and every
    file it names, which are `attached`, as paths relative to the model file's folder.
    """

    model: str
    side: SideFile
    side_digest: str | None = None
    attached: tuple[str, ...] = ()
    evaluation: Path | str | None = None
    example: Path | None = None
    labels: tuple[str, ...] = ()

    @property
    def told(self) -> Told:
        side = self.side
        return Told(
            description=side.description,
            author=side.author,
            licence=side.licence,
            training_dataset=side.training_dataset,
            labels=self.labels,
            metrics=side.metrics,
            dependencies=tuple(side.dependencies),
        )


def declared(candidate: Candidate, said: Mapping[str, Any]) -> Declared:
    """What the side file says, overlaid with what somebody `said` by the same keys: theirs are paths of
    their own, from anywhere. Raises `ArtifactRefused`.
    """
    path = candidate.side_file
    side = (SideFile() if path is None else read_side_file(path)).overlaid(said)
    named = {key: value for key in ("evaluation_set", "example") if (value := getattr(side, key)) is not None}
    if isinstance(side.labels, str):
        named["labels"] = side.labels
    files = {
        key: _file(candidate, path, value, key in said)
        for key, value in named.items()
        if not value.startswith(MLFLOW_SCHEMES)
    }
    ours = {key: file for key, file in files.items() if key not in said}
    return Declared(
        model=side.name or name_of(candidate),
        side=side,
        side_digest=None if path is None else _digest(path, ours),
        attached=tuple(sorted(os.path.relpath(file, candidate.path.parent) for file in ours.values())),
        evaluation=files.get("evaluation_set") or side.evaluation_set,
        example=files.get("example"),
        labels=_labels(files["labels"]) if "labels" in files else tuple(side.labels or ()),
    )


def name_of(candidate: Candidate) -> str:
    """The file's name without its suffix; for a file called just `model`, that of the nearest folder that
    is neither a number nor the configured folder itself.
    """
    name = candidate.stem
    if name == _PLACEHOLDER:
        inner = candidate.path.parent.relative_to(candidate.folder).parts
        name = next((part for part in reversed(inner) if not part.isdecimal()), name)
    return re.sub(r"[/:\x00-\x1f]|^\.+", "-", name.encode(errors="replace").decode())[:200]


def _file(candidate: Candidate, side_file: Path | None, value: str, is_own: bool) -> Path:
    if not is_own and side_file is not None:
        return inside(side_file, value, candidate.folder)
    path = Path(value)
    if not path.is_file():
        raise ArtifactRefused(f"there is no file '{value}'", next_step="check the path")
    return path


def _digest(side_file: Path, files: Mapping[str, Path]) -> str:
    return tree_digest({"side": file_sha256(side_file)} | {key: file_sha256(f) for key, f in files.items()})


def _labels(file: Path) -> tuple[str, ...]:
    """One label per line."""
    step = "write one label per line, as UTF-8 text"
    if file.stat().st_size > _MAX_LABEL_BYTES:
        raise ArtifactRefused(f"the labels file '{file.name}' is larger than 1 MB", next_step=step)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ArtifactRefused(f"the labels file '{file.name}' is not UTF-8 text", next_step=step) from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if not 0 < len(labels) <= MAX_LABELS:
        problem = f"the labels file '{file.name}' holds {len(labels)} labels, not 1 to {MAX_LABELS}"
        raise ArtifactRefused(problem, next_step=step)
    return labels
