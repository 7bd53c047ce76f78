"""The home folder: where its parts lie, and what is created in it on first start.

Invariant: keys and secrets are readable by their owner alone and never replaced once they exist.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.cli.errors import CommandFailed
from flows.settings import FlowSettings, runtime_folder
from serving.store.durable import exclusive

# The kernel takes 104 bytes on macOS and 108 on Linux, and the supervisor first binds `<path>.<pid>`.
_SOCKET_PATH_BYTES = 90
_PRIVATE_FOLDER = 0o700
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one `SIGNALBOX_HOME`."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def stack_record(self) -> Path:
        return self.run / "stack.json"

    @property
    def supervisor_config(self) -> Path:
        return self.run / "supervisord.conf"

    @property
    def supervisor_pid_file(self) -> Path:
        return self.run / "supervisord.pid"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisord.log"

    def pid_file(self, part: str) -> Path:
        return self.run / f"{part}.pid"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    @property
    def socket(self) -> Path:
        """The supervisor's socket: in the run folder, or in a short place when that path is too long."""
        near = self.run / "supervisord.sock"
        if len(os.fsencode(near)) <= _SOCKET_PATH_BYTES:
            return near
        return runtime_folder() / f"{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}.sock"


def prepare(settings: FlowSettings) -> Home:
    """Create what is missing of the home folder, the admin key and the webhook secret."""
    home = Home(settings.home)
    try:
        home.root.mkdir(parents=True, mode=_PRIVATE_FOLDER, exist_ok=True)
        for folder in (home.run, home.logs):
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        _create_secret(settings.admin_key_file)
        _create_secret(settings.webhook_secret_file)
        if home.socket.parent != home.run:
            _private_folder(home.socket.parent)
    except OSError as error:
        problem = f"the home folder {home.root} cannot be used: {error.strerror} ({error.filename})"
        raise CommandFailed(problem, next_step="set SIGNALBOX_HOME to a folder you may write") from None
    return home


@contextmanager
def starting(home: Home) -> Iterator[None]:
    """Held while a stack is brought up, so that of two `up` at once the second finds the first's work."""
    with exclusive(home.run / "up.lock"):
        yield


def _create_secret(path: Path) -> None:
    """Write 256 random bits unless there already is a file; it appears whole or not at all."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _private_folder(folder: Path) -> None:
    """Another user must not have made the folder, or could answer in the supervisor's place."""
    folder.mkdir(parents=True, mode=_PRIVATE_FOLDER, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        problem = f"the folder {folder} for the supervisor's socket is not private to this user"
        raise CommandFailed(problem, next_step="remove it, or choose a shorter SIGNALBOX_HOME")
