"""torch.export archives (`.pt2`)."""

from pathlib import Path

from serving.formats.archive import check_archive
from serving.formats.limits import DEFAULT_LIMITS, FileLimits

_EXPORT_AGAIN = "export the model again with torch.export.save"


def check_export(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> None:
    """Raise ArtifactRefused unless the archive is sound; loads nothing."""
    check_archive(path, limits, _EXPORT_AGAIN)
