"""One pass over the model folders: what is new and settled is registered or refused, all else left alone.

Called by the flow. What is noted of each path decides (`attention`); nothing that is noted as settled
is opened again. Files that appeared just now are watched for the quiet period within the pass.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine

from flows.catalog.attention import Attention, Decision, attention
from flows.catalog.discover import Candidate, Listing, Stray, data_files, fingerprint, look_through
from flows.catalog.examination import ExaminerLost
from flows.catalog.outcome import Outcome, Recorder, Result
from flows.catalog.register import Means, Request, register
from serving.core.clock import Clock
from serving.core.errors import RegistryUnavailable
from serving.store import model_files
from serving.store.model_files import ModelFile, State, key_of

# A network folder that is away for a while must not make its files new when it is back.
_FORGET_AFTER = timedelta(days=7)
_OLD_WORK_SECONDS = 6 * 3600.0
_LONGEST_WATCH_SECONDS = 60.0
_MARGIN_SECONDS = 0.05
# A file may name weight files that nobody knew to belong to it: those are watched in a second round.
_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Watch:
    """How long a file must stay as it is, and how the pass waits for that."""

    quiet_seconds: float
    sleep: Callable[[float], None]


@dataclass(slots=True)
class ScanReport:
    """`interrupted` says why the pass ended before its end; what it had not reached is tried again."""

    outcomes: list[Outcome] = field(default_factory=list)
    unchanged: int = 0
    missing: Sequence[Path] = ()
    interrupted: str | None = None

    def of(self, result: Result) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.result is result]

    @property
    def sentence(self) -> str:
        counts = {str(result): len(self.of(result)) for result in Result if result is not Result.UNCHANGED}
        said = [f"{count} {name}" for name, count in counts.items() if count]
        parts = [", ".join([*said, f"{self.unchanged + len(self.of(Result.UNCHANGED))} unchanged"])]
        parts += [f"no folder {folder}" for folder in self.missing]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Found:
    """A candidate as it lies there now, beside what is noted of it."""

    candidate: Candidate
    noted: ModelFile | None
    members: tuple[str, ...]
    fingerprint: str
    decision: Decision

    @property
    def file(self) -> ModelFile:
        """The row as it is to be: what became of the path before stays noted while it changes."""
        now = {"fingerprint": self.fingerprint, "members": self.members, "since": self.decision.since}
        if self.noted is None:
            return ModelFile(path=str(self.candidate.path), **now)  # type: ignore[arg-type]
        kept = self.decision.attention in (Attention.RESUME, Attention.LEAVE)
        state = self.noted.state if kept else State.CHANGING
        return replace(self.noted, state=state, missing_since=None, **now)  # type: ignore[arg-type]


def scan(folders: Sequence[Path], means: Means, watch: Watch, engine: Engine) -> ScanReport:
    """What the pass did. Raises `StoreUnavailable`; an MLflow that is away ends it early, in its report."""
    _clear_old_work(means.home, means.clock)
    listing = look_through(folders)
    noted = model_files.known(engine)
    report = ScanReport(missing=listing.missing)
    strays = [*_strays(listing.strays, noted, means.recorder)]
    found = [*_looked_at(listing.candidates, noted, means.clock, watch.quiet_seconds)]
    report.unchanged = sum(one.decision.attention is Attention.LEAVE for one in found)
    report.unchanged += len(listing.strays) - len(strays)
    outcomes = {stray.path: stray for stray in strays}
    try:
        for _round in range(_ROUNDS):
            _note(found, engine, means.clock)
            found = _watched(found, engine, means.clock, watch)
            for outcome in _taken(found, means):
                outcomes[outcome.path] = outcome
            asked = [one.candidate for one in found if _waits(outcomes.get(one.candidate.path))]
            if not asked:
                break
            found = [*_looked_at(asked, model_files.known(engine), means.clock, watch.quiet_seconds)]
    except (RegistryUnavailable, ExaminerLost) as error:
        report.interrupted = str(error)
    report.outcomes = list(outcomes.values())
    _note_missing(listing, noted, folders, engine, means.clock)
    return report


def _taken(found: Sequence[_Found], means: Means) -> Iterator[Outcome]:
    for one in found:
        if one.decision.attention in (Attention.TAKE, Attention.RESUME):
            yield register(Request(candidate=one.candidate, file=one.file, said={}), means)
        elif one.decision.attention is Attention.WAIT:
            yield _waiting(one)


def _waits(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.result is Result.PENDING


def _looked_at(
    candidates: Sequence[Candidate], noted: Mapping[str, ModelFile], clock: Clock, quiet_seconds: float
) -> Iterator[_Found]:
    for candidate in candidates:
        before = noted.get(key_of(str(candidate.path)))
        # Once a file was examined, it is known which weights are its own.
        members = before.members if before is not None else data_files(candidate.path)
        attached = before.attached if before is not None else ()
        with suppress(OSError):  # it vanished meanwhile
            seen = fingerprint(candidate, (*members, *attached))
            decision = attention(seen, before, clock.now(), quiet_seconds)
            yield _Found(candidate, before, members, seen, decision)


def _note(found: Sequence[_Found], engine: Engine, clock: Clock) -> None:
    """Remember since when each file that is not settled lies there as it does."""
    waiting = [one for one in found if one.decision.attention in (Attention.WAIT, Attention.TAKE)]
    changed = [one.file for one in waiting if one.noted is None or one.file != one.noted]
    model_files.put_all(engine, changed, clock.now())


def _watched(found: list[_Found], engine: Engine, clock: Clock, watch: Watch) -> list[_Found]:
    """The same after the quiet period, in which files that were complete have stayed as they were."""
    waits = [one.decision.wait_seconds for one in found if one.decision.attention is Attention.WAIT]
    if not waits:
        return found
    watch.sleep(min(max(waits) + _MARGIN_SECONDS, _LONGEST_WATCH_SECONDS))
    noted = {key_of(one.file.path): one.file for one in found}
    again = {
        one.candidate.path: one
        for one in _looked_at(
            [one.candidate for one in found if one.decision.attention is Attention.WAIT],
            noted,
            clock,
            watch.quiet_seconds,
        )
    }
    _note([*again.values()], engine, clock)
    rest = [one for one in found if one.decision.attention is not Attention.WAIT]
    return sorted([*rest, *again.values()], key=lambda one: one.candidate.path)


def _waiting(one: _Found) -> Outcome:
    reason = f"it has to stay as it is for {one.decision.wait_seconds:.0f} s more"
    return Outcome(path=one.candidate.path, result=Result.PENDING, reason=reason)


def _strays(strays: Sequence[Stray], noted: Mapping[str, ModelFile], recorder: Recorder) -> Iterator[Outcome]:
    """Refused once for their reason."""
    for stray in strays:
        before = noted.get(key_of(str(stray.path)))
        if before is not None and before.state is State.REFUSED and before.reason == stray.reason:
            continue
        file = ModelFile(path=str(stray.path), fingerprint="link", since=recorder.clock.now())
        outcome = Outcome(path=stray.path, result=Result.REFUSED, reason=stray.reason)
        yield recorder.refused(file, outcome)


def _note_missing(
    listing: Listing,
    noted: Mapping[str, ModelFile],
    folders: Sequence[Path],
    engine: Engine,
    clock: Clock,
) -> None:
    """Files that are gone are forgotten after a while; until then their return is no news."""
    there = {key_of(str(path)) for path in _paths(listing)}
    now = clock.now()
    gone = [
        file
        for key, file in noted.items()
        if key not in there and any(Path(file.path).is_relative_to(folder) for folder in folders)
    ]
    late = [file.path for file in gone if file.missing_since and now - file.missing_since >= _FORGET_AFTER]
    fresh = [replace(file, missing_since=now) for file in gone if file.missing_since is None]
    # Read anew: what this pass has taken says so itself by now.
    present = model_files.known(engine) if any(file.missing_since for file in noted.values()) else {}
    back = [
        replace(file, missing_since=None)
        for key, file in present.items()
        if key in there and file.missing_since is not None
    ]
    if late:
        model_files.forget(engine, late)
    if fresh or back:
        model_files.put_all(engine, [*fresh, *back], now)


def _paths(listing: Listing) -> Iterator[Path]:
    yield from (candidate.path for candidate in listing.candidates)
    yield from (stray.path for stray in listing.strays)


def _clear_old_work(home: Path, clock: Clock) -> None:
    """Working folders of passes that were killed."""
    for folder in home.glob("registration-*"):
        with suppress(OSError):
            if clock.now().timestamp() - folder.stat().st_mtime > _OLD_WORK_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
