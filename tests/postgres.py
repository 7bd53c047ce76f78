"""A PostgreSQL cluster of the tests' own, from the installed binaries, in a temporary directory.

Reached over a socket in that directory alone, so it takes no port and meets no other server. Started
as another user where the tests run as root, which PostgreSQL refuses.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

from serving.store.database import upgrade

_OWNER: Final = "postgres"
_TEMPLATE: Final = "upgraded"
# Nothing here outlives the tests, and a real flush per transaction would double their time.
_OPTIONS: Final = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c max_connections=50"


def binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl` of the newest PostgreSQL installed, None where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    on_path = shutil.which("initdb")
    candidates = [*found, *([Path(on_path).resolve()] if on_path else [])]
    return next((path.parent for path in candidates if (path.parent / "pg_ctl").exists()), None)


class PostgresServer:
    """One running cluster. Every database it gives is a copy of an upgraded, empty store."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._user = pwd.getpwnam(_OWNER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        # Short, because the socket's whole path must stay below 108 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._cluster = str(self._folder / "cluster")
        self._numbers = count(1)

    def start(self) -> None:
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", self._cluster, "-U", _OWNER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.go_on()
        self._create(_TEMPLATE, "template1")
        upgrade(self.url(_TEMPLATE))

    def go_on(self) -> None:
        """Start the server over the data it has."""
        options = f"{_OPTIONS} -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", self._cluster, "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop as if by a power cut; the data stays."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._cluster)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def store(self) -> str:
        """URL of a new database with an upgraded, empty store."""
        return self._new(_TEMPLATE)

    def blank(self) -> str:
        """URL of a new database without any tables."""
        return self._new("template1")

    def url(self, database: str) -> str:
        return f"postgresql://{_OWNER}@/{database}?host={self._folder}"

    def _new(self, template: str) -> str:
        name = f"store{next(self._numbers)}"
        self._create(name, template)
        return self.url(name)

    def _create(self, name: str, template: str) -> None:
        where = f"host={self._folder} user={_OWNER} dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log'.encode())

    def _run(self, program: str, *arguments: str) -> None:
        is_root = os.geteuid() == 0
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            stdin=subprocess.DEVNULL,
            # The server inherits these; a pipe would never reach its end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            user=self._user.pw_uid if is_root else None,
            group=self._user.pw_gid if is_root else None,
            extra_groups=[] if is_root else None,
            check=False,
            timeout=120,
        )
        if done.returncode:
            log = self._folder / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else "it left no log"
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")
