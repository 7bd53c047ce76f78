"""What runs for one home: the record of how each part came to be there, and the stack's present state.

Called by `up`, `down` and `status`. Invariant: only what was started from this home is ever stopped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.cli.decision import Action, Answer
from flows.cli.exits import last_exits
from flows.cli.home import Home
from flows.cli.parts import PARTS, Part
from flows.cli.sessions import end_session, is_alive, read_leader
from flows.cli.supervision import PartState, end_supervisor, part_states
from flows.settings import FlowSettings
from serving.store.durable import write_atomically

_LOG_TAIL_BYTES = 1 << 18
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Placed:
    """How a part came to be where it is, as `up` decided."""

    action: Action
    url: str


@dataclass(frozen=True, slots=True)
class PartView:
    """One row of `status`. `state` is `running` or `attached` when all is well with the part."""

    part: str
    state: str
    pid: int | None
    restarts: int
    last_exit: str | None
    url: str
    log: str | None

    @property
    def is_well(self) -> bool:
        return self.state in ("running", "attached")


def write_record(home: Home, placed: Mapping[str, Placed]) -> None:
    record = {name: {"action": entry.action, "url": entry.url} for name, entry in placed.items()}
    write_atomically(home.stack_record, json.dumps(record, indent=2).encode())


def read_record(home: Home) -> dict[str, Placed]:
    """What the last `up` decided; empty where nothing is up."""
    try:
        record = json.loads(home.stack_record.read_text())
        return {name: Placed(Action(entry["action"]), str(entry["url"])) for name, entry in record.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def view(home: Home, settings: FlowSettings) -> list[PartView]:
    """The state of every part of the table, in its order."""
    states = part_states(home) or {}
    record = read_record(home)
    exits = last_exits(_tail(home.supervisor_log))
    return [
        _part_view(home, settings, part, record.get(part.name), states.get(part.name), exits.get(part.name))
        for part in PARTS
    ]


def stop(home: Home) -> list[str]:
    """Stop everything started from this home; the names of what ran. Idempotent."""
    started = [part.name for part in PARTS if _runs(home, part.name)]
    end_supervisor(home, within_seconds=sum(part.stop_seconds for part in PARTS) + _GRACE_SECONDS)
    for part in reversed(PARTS):
        leader = read_leader(home.pid_file(part.name))
        if leader is not None:
            end_session(leader)
        home.pid_file(part.name).unlink(missing_ok=True)
    home.stack_record.unlink(missing_ok=True)
    return started


def log_end(path: Path, lines: int) -> list[str]:
    """The last lines of a log."""
    return _tail(path).splitlines()[-lines:]


def _part_view(
    home: Home,
    settings: FlowSettings,
    part: Part,
    placed: Placed | None,
    state: PartState | None,
    last_exit: str | None,
) -> PartView:
    url = placed.url if placed is not None else part.url(settings)
    if placed is not None and placed.action is Action.ATTACH:
        answer = part.probe(settings).answer
        word = "attached" if answer is Answer.HEALTHY else f"attached, {_COMPLAINTS[answer]}"
        return PartView(part.name, word, None, 0, None, url, None)
    leader = read_leader(home.pid_file(part.name))
    restarts = leader.starts - 1 if leader is not None else 0
    log = str(home.log(part.name))
    # Until the new process has recorded itself, what answers is what a killed one left behind.
    settled = leader is not None and state is not None and leader.pid == state.pid
    word = _word(state, ready=settled and part.ready(settings, url))
    pid = state.pid if state is not None else None
    if state is None and leader is not None and is_alive(leader):
        word, pid = "unsupervised", leader.pid
    return PartView(part.name, word, pid, restarts, last_exit, url, log)


_COMPLAINTS = {
    Answer.NOTHING: "unreachable",
    Answer.UNAUTHORISED: "refuses our credentials",
    Answer.FOREIGN: "replaced by something else",
    Answer.UNHEALTHY: "unhealthy",
}


def _word(state: PartState | None, *, ready: bool) -> str:
    """One word for a supervised part; it runs only once it is ready to work."""
    if state is None:
        return "stopped"
    if state.state in ("starting", "running"):
        return "running" if ready else "not ready"
    return "restarting" if state.state == "exited" else state.state


def _runs(home: Home, part: str) -> bool:
    leader = read_leader(home.pid_file(part))
    return leader is not None and is_alive(leader)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
