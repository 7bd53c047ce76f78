"""A real file system of one megabyte, for tests of what happens when a disk is full."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_SIZE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """`fill` leaves not a byte, `make_room` takes the ballast away again."""

    folder: Path

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"0" * 4096)
            except OSError:  # full
                return

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()


def problem() -> str | None:
    """Why no file system can be mounted here, else None."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    folder = tempfile.mkdtemp(prefix="signalbox-disk-")
    try:
        mounted = _mount(Path(folder))
        if mounted is None:
            subprocess.run(["umount", folder], check=True)
        return mounted
    finally:
        os.rmdir(folder)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """One at `folder`, which is made if need be; gone with all that is on it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if (failed := _mount(folder)) is not None:
        raise RuntimeError(failed)
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily, because a thread of the server may still be leaving it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path) -> str | None:
    """The reason if it did not work."""
    options = f"size={_SIZE_BYTES}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "signalbox-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"a small disk cannot be mounted: {done.stderr.strip()}"


PROBLEM = problem()

# A skipped fault counts as not survived, so the mark is left away where there is nothing to inject it with;
# a build server runs as root and has no excuse.
if PROBLEM is None or (os.environ.get("CI") and os.geteuid() == 0):
    needs_small_disk = pytest.mark.fault("F4")
else:
    needs_small_disk = pytest.mark.skip(reason=PROBLEM)
