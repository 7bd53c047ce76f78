"""One model file to a registered version, once: safe to repeat after a kill at any moment.

Examined first, so that nothing of a bad file reaches the registry. Then the intent is noted, the writes
to MLflow follow with the version last, and the outcome is noted. A version is known by its bytes: the
tag `signalbox.source_digest` is looked for before anything is made, and once more after.
"""

import getpass
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from flows.catalog import evaluation
from flows.catalog.attention import Meaning, meaning
from flows.catalog.declared import Declared, declared
from flows.catalog.description import from_json
from flows.catalog.discover import Candidate, fingerprint, source_digest
from flows.catalog.evaluation import EvaluationRefused
from flows.catalog.examination import Examiner
from flows.catalog.examined import Examined, Task
from flows.catalog.outcome import Outcome, Recorder, Result
from flows.catalog.publish import Publication, Publisher
from serving.core.clock import Clock
from serving.core.errors import ArtifactRefused
from serving.core.model import Tag
from serving.formats.limits import FileLimits
from serving.store.durable import exclusive
from serving.store.model_files import ModelFile, State
from serving.store.registry import ModelVersion, Registry

Progress = Callable[[str, float], None]
"""Told what is being done now, and which share of the whole is done."""

_LOCKS = 64
_ATTEMPTS = 3
_CHANGED = "it changed while it was read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What registering works with. `home` is where locks and working folders go."""

    registry: Registry
    client: httpx.Client
    publisher: Publisher
    examiner: Examiner
    recorder: Recorder
    clock: Clock
    home: Path
    limits: FileLimits
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`file` is what is noted of the path, with its present fingerprint and members.

    `said` outranks the side file. `is_afresh`: whoever asks wants an answer, not to hear that nothing
    changed, and the file has not been watched before.
    """

    candidate: Candidate
    file: ModelFile
    said: Mapping[str, Any]
    is_afresh: bool = False
    progress: Progress = lambda doing, share: None


def register(request: Request, means: Means) -> Outcome:
    """What came of the file, recorded. Raises `RegistryUnavailable`, `StoreUnavailable`, `ExaminerLost`."""
    for _attempt in range(_ATTEMPTS):
        found = _once(request, means)
        if isinstance(found, Outcome):
            return found
        request = replace(request, file=found)
    return Outcome(path=request.candidate.path, result=Result.PENDING, reason=_CHANGED)


def _once(request: Request, means: Means) -> Outcome | ModelFile:
    """What came of it; of a file with weights that nobody knew of, the file with them, to begin anew."""
    candidate = request.candidate
    request.progress("reading", 0.05)
    try:
        wanted = declared(candidate, request.said)
        file = _looked_at(request, wanted)
    except ArtifactRefused as refused:
        return _refused(request.file, candidate, refused, means)
    except OSError as error:
        reason = f"it could not be read ({error.strerror or type(error).__name__})"
        return Outcome(path=candidate.path, result=Result.PENDING, reason=reason)
    with exclusive(_lock(means.home, wanted.model, file.source_digest or "")):
        return _Registration(request, wanted, file, means).outcome()


class _Registration:
    """One file on its way, alone with its bytes on this machine."""

    def __init__(self, request: Request, wanted: Declared, file: ModelFile, means: Means) -> None:
        self._request = request
        self._wanted = wanted
        self._file = file
        self._means = means
        self._path = request.candidate.path

    def outcome(self) -> Outcome | ModelFile:
        before = self._request.file
        if before.state is not State.REGISTERING and not self._request.is_afresh:
            said = meaning(self._file.source_digest or "", self._wanted.side_digest, before)
            if said is Meaning.AS_BEFORE and (before.version is None or before.model == self._wanted.model):
                return self._as_before()
        known = self._version(self._file.source_digest)
        self._tidy(known)
        if known is not None and self._is_told(before):
            return self._already(known)
        with tempfile.TemporaryDirectory(prefix="registration-", dir=self._means.home) as folder:
            return self._examined(Path(folder), known)

    def _as_before(self) -> Outcome:
        """Touched, or put there again with the same bytes."""
        state = State.REFUSED if self._file.version is None else State.REGISTERED
        self._means.recorder.put(replace(self._file, state=state, attempt=None))
        return self._outcome(Result.UNCHANGED, version=self._file.version)

    def _is_told(self, before: ModelFile) -> bool:
        """Whether the version that is there says all that is now said of it."""
        if before.state is State.REGISTERING:
            return False
        said = before.side if before.version is not None and before.model == self._wanted.model else None
        return _without_name(self._wanted.side.as_json) == _without_name(said or {})

    def _already(self, known: ModelVersion) -> Outcome:
        outcome = self._outcome(Result.ALREADY, version=known.ref.version)
        side = self._wanted.side.as_json
        return self._means.recorder.became_version(self._file, outcome, side, None, {})

    def _examined(self, work: Path, known: ModelVersion | None) -> Outcome | ModelFile:
        try:
            task = self._task(work)
            self._request.progress("examining", 0.2)
            found = self._means.examiner.examine(task, work)
            if set(found.members) - set(self._file.members):
                return self._watched_from_now(found)
            self._file = self._with_members(found)
            if found.problem is not None:
                raise ArtifactRefused(found.problem, next_step=found.next_step)
            if found.source_digest != self._file.source_digest:
                return self._outcome(Result.PENDING, reason=_CHANGED)
            return self._published(task, found, known or self._version(found.source_digest))
        except (ArtifactRefused, EvaluationRefused) as refused:
            return _refused(self._file, self._request.candidate, refused, self._means, self._wanted.model)

    def _task(self, work: Path) -> Task:
        wanted = self._wanted
        set_file = wanted.evaluation if isinstance(wanted.evaluation, Path) else None
        if isinstance(wanted.evaluation, str):
            set_file = evaluation.download(self._means.client, wanted.evaluation, work / "evaluation.npz")
        return Task(
            source=self._path,
            root=work / "model",
            threads=self._means.threads,
            limits=self._means.limits,
            evaluation=set_file,
            example=wanted.example,
            told=wanted.told,
        )

    def _watched_from_now(self, found: Examined) -> Outcome | ModelFile:
        """The file names weight files that were not known to belong to it: are they complete?"""
        file = self._with_members(found)
        if self._request.is_afresh:
            return file
        if found.problem is not None:
            refused = ArtifactRefused(found.problem, next_step=found.next_step)
            return _refused(file, self._request.candidate, refused, self._means, self._wanted.model)
        since = self._means.clock.now()
        self._means.recorder.put(replace(file, state=State.CHANGING, since=since))
        names = ", ".join(f"'{name}'" for name in found.members)
        return self._outcome(Result.PENDING, reason=f"its weights {names} are watched from now on")

    def _with_members(self, found: Examined) -> ModelFile:
        if found.members == self._file.members:
            return self._file
        together = (*found.members, *self._file.attached)
        return replace(
            self._file,
            members=found.members,
            fingerprint=fingerprint(self._request.candidate, together),
            source_digest=source_digest(self._path, found.members),
        )

    def _published(self, task: Task, found: Examined, known: ModelVersion | None) -> Outcome:
        description = from_json(found.description)
        publication = Publication(
            task=task,
            found=found,
            description=description,
            wanted=self._wanted,
            name=self._path.name,
            said_before=self._request.file.side or {},
        )
        publisher, file, side = self._means.publisher, self._file, self._wanted.side.as_json
        if known is not None:
            publisher.describe(known, publication)
            resumed = self._request.file.state is State.REGISTERING
            result = Result.REGISTERED if resumed else Result.DESCRIBED
            outcome = self._outcome(result, found, version=known.ref.version)
        else:
            attempt = publisher.attempt(uuid4().hex, self._wanted.model)
            self._means.recorder.put(
                replace(file, state=State.REGISTERING, model=self._wanted.model, attempt=attempt.text)
            )
            try:
                version = publisher.publish(attempt, publication, self._request.progress)
            except ArtifactRefused:
                publisher.remove(attempt.text, self._wanted.model, None)
                raise
            outcome = self._outcome(Result.REGISTERED, found, version=version)
        self._keep_baseline(outcome)
        details = {"source_digest": found.source_digest, "digest": found.digest, "golden": found.golden}
        return self._means.recorder.became_version(file, outcome, side, description, details)

    def _keep_baseline(self, outcome: Outcome) -> None:
        declared, before = self._wanted.side.baseline, (self._request.file.side or {}).get("baseline")
        if declared is not None and declared.model_dump(exclude_none=True) != before:
            self._means.recorder.declared(outcome, declared.numbers)

    def _version(self, digest: str | None) -> ModelVersion | None:
        """The oldest version of these bytes."""
        versions = self._means.registry.versions(self._wanted.model)
        return next((v for v in versions if digest and v.tags.get(Tag.SOURCE_DIGEST) == digest), None)

    def _tidy(self, known: ModelVersion | None) -> None:
        """Take away what a registration that was cut off left behind."""
        before = self._request.file
        if before.attempt is not None and before.model is not None:
            self._means.publisher.remove(before.attempt, before.model, known.run_id if known else None)

    def _outcome(
        self,
        result: Result,
        found: Examined | None = None,
        *,
        version: str | None = None,
        reason: str | None = None,
    ) -> Outcome:
        return Outcome(
            path=self._path,
            result=result,
            model=self._wanted.model,
            version=version,
            reason=reason,
            format=found.format if found else None,
            digest=found.digest if found else None,
            notes=(found.golden or "", found.self_test or "", *found.notes) if found else (),
        )


def _without_name(side: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in side.items() if key != "name"}


def _looked_at(request: Request, wanted: Declared) -> ModelFile:
    """What is noted of the file, brought up to date. The fingerprint is taken before the bytes are read."""
    members = request.file.members
    seen = fingerprint(request.candidate, (*members, *wanted.attached))
    return replace(
        request.file,
        fingerprint=seen,
        attached=wanted.attached,
        source_digest=source_digest(request.candidate.path, members),
        side_digest=wanted.side_digest,
    )


def _refused(
    file: ModelFile, candidate: Candidate, error: Exception, means: Means, model: str | None = None
) -> Outcome:
    outcome = Outcome(path=candidate.path, result=Result.REFUSED, model=model, reason=str(error))
    return means.recorder.refused(file, outcome)


def _lock(home: Path, model: str, digest: str) -> Path:
    """One of a fixed number of files, so that two registrations of the same bytes take turns."""
    number = int(sha256(f"{model}\n{digest}".encode()).hexdigest(), 16) % _LOCKS
    return home / "run" / f"register-{number}.lock"


def actor() -> str:
    return f"unverified:{getpass.getuser()}"
