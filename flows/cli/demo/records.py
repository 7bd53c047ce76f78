"""What became of every request: one line of JSON each, written by the traffic, read by the demonstration.

Moments are of the monotonic clock, which all processes of a machine share.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """One request as its caller saw it.

    `version` is who claims to have answered, None where there was no answer; `matches` whether the
    outputs are that version's own. `status` is None where not even an HTTP answer came. `rows` is how
    many scans it carried.
    """

    started: float
    ended: float
    version: str | None
    variant: str | None
    matches: bool
    status: int | None
    error: str | None = None
    rows: int = 1

    @property
    def is_answered(self) -> bool:
        return self.version is not None

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def parse(line: str) -> Record:
    return Record(**json.loads(line))


class RecordFile:
    """Reads what was appended since the last look; a line that is still being written waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def news(self) -> list[Record]:
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        return [parse(line) for line in whole.decode().splitlines()]
