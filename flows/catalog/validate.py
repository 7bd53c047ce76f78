"""Validating one version: fetch it and the champion, measure both in a clean process, judge.

Called by the promotion and validation flows and by `signalbox validate`. What is wrong with the
version is a verdict, whatever it does; only a registry that cannot be read is an error.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from flows.catalog import evaluation
from flows.catalog.checks import judge
from flows.catalog.evaluation import EvaluationRefused
from flows.catalog.facts import Facts, Loaded, Side
from flows.catalog.measure import FACTS, TASKS, Task
from flows.catalog.policy import ValidationPolicy
from flows.catalog.report import ValidationReport
from flows.catalog.verdict import overall
from serving.core.clock import Clock, SystemClock
from serving.core.cpus import cpu_count
from serving.core.errors import ArtifactRefused, NotServed
from serving.core.model import Alias, Tag, VersionRef
from serving.store.artifacts import ArtifactCache
from serving.store.registry import ModelVersion, RegisteredModel, Registry, connect
from serving.store.settings import StoreSettings

_TOLD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Validation:
    """What to validate. `champion` is the version to compare with, by default the registry's champion;
    `threads` is per inference, 0 for all CPUs of this process, as serving has it.
    """

    ref: VersionRef
    policy: ValidationPolicy = field(default_factory=ValidationPolicy)
    champion: str | None = None
    deadline_seconds: float = 60.0
    threads: int = 0


def run(request: Validation, settings: StoreSettings, clock: Clock | None = None) -> ValidationReport:
    """The version's report.

    Raises:
        NotServed: the registry has no such model or version.
        RegistryUnavailable: MLflow, or its artifact proxy, did not answer.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with (
        connect(settings) as client,
        tempfile.TemporaryDirectory(prefix="validation-", dir=settings.home) as folder,
    ):
        desk = _Desk(request, settings, client, Path(folder))
        return desk.report(clock or SystemClock())


class _Desk:
    """One validation's clients and working folder."""

    def __init__(
        self, request: Validation, settings: StoreSettings, client: httpx.Client, work_folder: Path
    ) -> None:
        self._request = request
        self._client = client
        self._work_folder = work_folder
        self._registry = Registry(client, settings.serves, settings.env)
        # Serving owns the cache and trims it; a limit matters only for that.
        self._cache = ArtifactCache(settings.home / "cache", client, self._registry, limit_bytes=0)

    def report(self, clock: Clock) -> ValidationReport:
        request, started = self._request, clock.monotonic()
        model = self._registry.registered_model(request.ref.model)
        version = self._registry.version(request.ref)
        champion = self._champion(model)
        declared = evaluation.declared(model.tags, version.tags)
        task = self._task(model, version)
        if isinstance(task, Loaded):
            facts = Facts(candidate=task)
        else:
            task = self._with_evaluation(self._with_champion(task, champion), declared)
            facts = measured(task, self._work_folder)
        checks = judge(facts, request.policy)
        loaded = facts.candidate or Loaded(request.ref.version)
        return ValidationReport(
            model=request.ref.model,
            version=request.ref.version,
            champion=champion.ref.version if champion else None,
            verdict=overall(checks),
            checks=checks,
            evaluation_set=declared,
            format=loaded.format,
            digest=loaded.digest,
            policy=request.policy,
            created_at=clock.now(),
            seconds=round(clock.monotonic() - started, 3),
        )

    def _champion(self, model: RegisteredModel) -> ModelVersion | None:
        """The version to compare with; a version is never compared with itself."""
        number = self._request.champion or model.aliases.get(Alias.CHAMPION)
        if number is None or number == self._request.ref.version:
            return None
        try:
            return self._registry.version(VersionRef(model.name, number))
        except NotServed:
            if self._request.champion is not None:
                raise
            return None

    def _task(self, model: RegisteredModel, version: ModelVersion) -> Task | Loaded:
        """What to measure of the candidate alone; `Loaded` where its files cannot even be fetched."""
        try:
            root = self._cache.fetch(version).root
        except ArtifactRefused as refused:
            return Loaded(version.ref.version, problem=str(refused))
        return Task(
            version=version.ref.version,
            root=root,
            digest=version.tags.get(Tag.DIGEST),
            model_type=model.tags.get(Tag.MODEL_TYPE),
            threads=self._request.threads or cpu_count(),
            deadline_seconds=self._request.deadline_seconds,
            policy=self._request.policy,
        )

    def _with_champion(self, task: Task, champion: ModelVersion | None) -> Task:
        if champion is None:
            return task
        task = replace(task, champion_version=champion.ref.version)
        try:
            return replace(task, champion_root=self._cache.fetch(champion).root)
        except ArtifactRefused as refused:
            return replace(task, champion_problem=str(refused))

    def _with_evaluation(self, task: Task, declared: str | None) -> Task:
        if declared is None:
            return task
        try:
            path = evaluation.download(self._client, declared, self._work_folder / "evaluation.npz")
        except EvaluationRefused as refused:
            return replace(task, evaluation_problem=str(refused))
        return replace(task, evaluation=path)


def measured(task: Task, work: Path) -> Facts:
    """The facts as a process of its own found them; without the champion where that is what it died of."""
    facts = _in_process(task, work)
    if facts.interrupted is None or facts.step is None or facts.step.side is not Side.CHAMPION:
        return facts
    problem = f"{facts.interrupted} while it was {facts.step.doing}"
    return _in_process(replace(task, champion_root=None, champion_problem=problem), work)


def _in_process(task: Task, work: Path) -> Facts:
    task_path, facts_path, log_path = work / "task.json", work / "facts.json", work / "log"
    task_path.write_bytes(TASKS.dump_json(task))
    facts_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "flows.catalog.measure", str(task_path), str(facts_path)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            interrupted = _ending(process, task.deadline_seconds, log_path)
        finally:
            _kill(process)
    facts = FACTS.validate_json(facts_path.read_bytes()) if facts_path.exists() else Facts()
    return replace(facts, interrupted=interrupted)


def _ending(process: subprocess.Popen[bytes], deadline_seconds: float, log_path: Path) -> str | None:
    """How the process ended if not well: a phrase that 'while ...' can follow."""
    try:
        code = process.wait(timeout=deadline_seconds)
    except subprocess.TimeoutExpired:
        return f"hanging: there was no end within {deadline_seconds:g} s"
    if code == 0:
        return None
    if code == -signal.SIGKILL:
        return "crashed: the process was killed, most likely for want of memory,"
    if code < 0:
        return f"crashed: the process died of {signal.Signals(-code).name}"
    return f"crashed: the process ended with exit code {code} ({_last_line(log_path)})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process if it still runs, with whatever it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log_path: Path) -> str:
    lines = log_path.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
