"""Joined labels as Parquet beside the inference log: written by the joiner, read with the log's rows."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.labels import LabelValue
from serving.store.inference_log import label_part_path, label_parts
from serving.store.labels import Joined
from serving.telemetry.columns import table_file

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution


class LabelPartFolder:
    """Confined to one thread."""

    def __init__(self, folder: Path, worker: str, clock: Clock, kept: timedelta) -> None:
        self._folder = folder
        self._worker = worker
        self._clock = clock
        self._kept = kept
        self._number = 0

    def write(self, joined: Sequence[Joined]) -> None:
        """One part per model and form of label. Raises `OSError` where the disk does not take it."""
        groups: dict[tuple[str, str, int], list[Joined]] = {}
        for each in joined:
            groups.setdefault((each.ref.model, *_form(each.label.label)), []).append(each)
        for (model, _, _), group in groups.items():
            self._number += 1
            newest_at = max(each.label.at for each in group)
            path = label_part_path(self._folder, model, newest_at, self._worker, self._number)
            _put(path, table_file(_columns(group)))

    def trim(self) -> None:
        """Remove parts that are older than the log is kept."""
        oldest_kept = self._clock.now() - self._kept
        for part in label_parts(self._folder):
            if part.newest_at < oldest_kept:
                part.path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    part.path.parent.rmdir()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _form(label: LabelValue) -> tuple[str, int]:
    """What labels of one part have in common: datatype and number of elements."""
    if isinstance(label, bool | int | float | str):
        return type(label).__name__, 1
    return "float", len(label)


def _columns(group: Sequence[Joined]) -> dict[str, Array]:
    """One row per label, the label as typed columns `label.<index>`."""
    kind, count = _form(group[0].label.label)
    dtype = {"bool": np.bool_, "int": np.int64, "float": np.float64, "str": object}[kind]
    values = [[each.label.label] if count == 1 and not _is_list(each) else each.label.label for each in group]
    matrix: Array = np.array(values, dtype=dtype).reshape(len(group), count)
    return {
        "time": _times([each.label.at for each in group]),
        "request_id": _texts([each.label.request_id for each in group]),
        "row": np.array([each.label.row for each in group], np.int32),
        "model": _texts([each.ref.model for each in group]),
        "version": _texts([each.ref.version for each in group]),
        "variant": _texts([str(each.variant) for each in group]),
        "answered_at": _times([each.answered_at for each in group]),
        "said": _texts([each.said for each in group]),
        **{f"label.{index}": column for index, column in enumerate(matrix.T)},
    }


def _is_list(joined: Joined) -> bool:
    return not isinstance(joined.label.label, bool | int | float | str)


def _times(moments: Sequence[datetime]) -> Array:
    micros = [(moment - _EPOCH) // _MICROSECOND for moment in moments]
    return np.array(micros, np.int64).view("datetime64[us]")


def _texts(values: Sequence[str | None]) -> Array:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
