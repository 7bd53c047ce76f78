"""The files that PyTorch's savers put beside a model in its archive, for whatever the author wants to say.

Read as bounded text from an archive that the adapter has checked.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serving.formats.told import Told, pairs_of, understood

_FOLDER = "extra/"
_MAX_BYTES = 1 << 20
_MAX_FILES = 50


@dataclass(frozen=True, slots=True)
class ExtraFiles:
    """What they say, and sentences on those that were passed over."""

    told: Told
    notes: tuple[str, ...]


def read_extra_files(path: Path) -> ExtraFiles:
    """Every file below `extra/`; a JSON object counts as pairs, anything else as one text by its name."""
    pairs: dict[str, str] = {}
    notes: list[str] = []
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if _inner(entry).startswith(_FOLDER)]
        for entry in entries[:_MAX_FILES]:
            name = _inner(entry).removeprefix(_FOLDER)
            if entry.file_size > _MAX_BYTES:
                notes.append(f"the extra file '{name}' is larger than {_MAX_BYTES} bytes and was not read")
            elif not entry.is_dir():
                pairs |= pairs_of(PurePosixPath(name).stem, archive.read(entry).decode(errors="replace"))
    if len(entries) > _MAX_FILES:
        notes.append(f"only {_MAX_FILES} of {len(entries)} extra files were read")
    return ExtraFiles(understood(pairs), tuple(notes))


def archive_version(path: Path) -> str | None:
    """The number of the archive's own layout, as its top folder states it."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if _inner(entry) in ("version", "archive_version") and entry.file_size < _MAX_BYTES:
                return archive.read(entry).decode(errors="replace").strip() or None
    return None


def _inner(entry: zipfile.ZipInfo) -> str:
    """The name below the archive's one top folder."""
    return entry.filename.partition("/")[2]
