"""`python -m serving [--workers N]`: read the settings, run the server, stop it without losing a request.

With one worker this process is the server; with more it is their parent, which stays light.
"""

import argparse
import logging
import os
import sys
import threading
from importlib import import_module
from typing import NoReturn

from pydantic import ValidationError

from serving import logs
from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.core.errors import SignalboxError
from serving.settings import ServingSettings


def main() -> int:
    """The process's exit code."""
    try:
        settings = _settings(sys.argv[1:])
        worker = settings.worker_slot if settings.is_fleet else None
        logs.set_up(settings.log_level, settings.log_format, worker)
        _refuse_open_door(settings)
        if settings.tls is not None:
            settings.tls.check()
        is_parent = settings.workers > 1 and not settings.is_fleet
        # Each imports what the other must not pay for.
        role = import_module("serving.fleet.parent" if is_parent else "serving.process")
        code: int = role.run(settings)
        return code
    except (SignalboxError, ValidationError) as error:
        print(f"serving cannot start: {error}", file=sys.stderr)
        return 1


def _settings(arguments: list[str]) -> ServingSettings:
    parser = argparse.ArgumentParser(prog="python -m serving", description="The serving process.")
    parser.add_argument("--workers", type=int, help="Processes that answer; see SIGNALBOX_WORKERS.")
    workers = parser.parse_args(arguments).workers
    return ServingSettings() if workers is None else ServingSettings(workers=workers)


def _refuse_open_door(settings: ServingSettings) -> None:
    """Beyond loopback nothing is served without a key to check."""
    keyring = Keyring(AdminKeyFile(settings.admin_key_file).digest, KeyMirror(settings.key_mirror_file))
    if not settings.is_loopback and keyring.is_empty:
        raise SignalboxError(
            f"SIGNALBOX_HOST={settings.host} is reachable by others, but there is no "
            f"key in {settings.admin_key_file} that only its owner can read; create one (mode 0600), "
            "or bind to 127.0.0.1"
        )


def _leave(code: int) -> NoReturn:
    """End the process, everything being closed. A thread that a model never returns would end it badly:
    it cannot be joined, and torch aborts when the interpreter takes its leave around it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
