"""Benchmarking one version: fetch it and the one beside it, measure in a clean process, judge.

Called by the promotion and benchmark flows and by `signalbox benchmark`. What is wrong with the
version is a verdict, whatever it does; only a registry that cannot be read is an error.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
from sqlalchemy import Engine

from flows.catalog import baseline, evaluation
from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.confinement import run_confined, turn
from flows.catalog.evaluation import EvaluationRefused
from flows.catalog.facts import Side
from flows.catalog.host import Host, this_host
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.logbook import FINDINGS, TASKS, Task
from flows.catalog.performance import Findings, Performance
from flows.catalog.rating import overall, rated
from serving.core.clock import Clock, SystemClock
from serving.core.cpus import cpu_count
from serving.core.errors import ArtifactRefused, NotServed
from serving.core.model import Alias, Tag, VersionRef
from serving.formats.artifact import inspect_artifact
from serving.store.artifacts import ArtifactCache
from serving.store.registry import ModelVersion, RegisteredModel, Registry, connect
from serving.store.settings import StoreSettings

_MODULE = "flows.catalog.load_test"
_MEGABYTE = 1 << 20
_MEMORY_SHARE = 0.75
# Less than this is no time to start another process in.
_LEAST_SECONDS = 5.0
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What to benchmark. `against` is an alias or a version's number to measure beside it, or `none`.

    `threads` is per inference, 0 for all CPUs of this process, as serving has it. Other benchmarks of
    this home are waited for no longer than `patience_seconds`: two at once disturb each other.
    """

    ref: VersionRef
    policy: BenchmarkPolicy = field(default_factory=BenchmarkPolicy)
    against: str = Alias.CHAMPION
    threads: int = 0
    patience_seconds: float = 120.0


def run(
    request: Benchmark,
    settings: StoreSettings,
    clock: Clock | None = None,
    engine: Engine | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> BenchmarkReport:
    """The version's report. `engine` is the store that knows former baselines, where there is one.

    Raises:
        NotServed: the registry has no such model or version.
        RegistryUnavailable: MLflow, or its artifact proxy, did not answer.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with (
        connect(settings) as client,
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=settings.home) as folder,
    ):
        desk = _Desk(request, settings, client, engine, Path(folder), progress)
        return desk.report(clock or SystemClock())


class _Desk:
    """One benchmark's clients and working folder."""

    def __init__(
        self,
        request: Benchmark,
        settings: StoreSettings,
        client: httpx.Client,
        engine: Engine | None,
        work_folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self._request = request
        self._client = client
        self._engine = engine
        self._work_folder = work_folder
        self._progress = progress
        self._lock = settings.home / "benchmark.lock"
        self._registry = Registry(client, settings.serves, settings.env)
        # Serving owns the cache and trims it; a limit matters only for that.
        self._cache = ArtifactCache(settings.home / "cache", client, self._registry, limit_bytes=0)

    def report(self, clock: Clock) -> BenchmarkReport:
        request, started, host = self._request, clock.monotonic(), this_host()
        self._progress("fetching")
        model = self._registry.registered_model(request.ref.model)
        version = self._registry.version(request.ref)
        findings = self._findings(model, version, self._beside(model), host)
        checks = rated(findings, request.policy)
        candidate = findings.candidate or Performance(request.ref.version)
        accuracy = None
        if self._engine is not None:
            names = (request.ref.model, request.ref.version, candidate.digest)
            accuracy = baseline.accuracy_on_record(self._engine, *names)
        return BenchmarkReport(
            model=request.ref.model,
            version=request.ref.version,
            verdict=overall(checks),
            checks=checks,
            candidate=candidate,
            champion=findings.champion,
            ratios=findings.ratios,
            source=findings.source,
            is_stable=findings.is_stable,
            gpu=findings.gpu,
            interrupted=findings.interrupted,
            is_late=findings.is_late,
            step=findings.step,
            accuracy=accuracy,
            host=host,
            policy=request.policy,
            created_at=clock.now(),
            seconds=round(clock.monotonic() - started, 3),
        )

    def _beside(self, model: RegisteredModel) -> ModelVersion | None:
        """The version to measure beside this one; a version is never compared with itself."""
        asked = self._request.against
        number = None if asked == NOBODY else model.aliases.get(asked, asked if asked.isdecimal() else None)
        if number is None and asked not in (NOBODY, Alias.CHAMPION, Alias.PREVIOUS):
            raise NotServed(
                f"'{model.name}' has no alias '{asked}' to compare with", exists=sorted(model.aliases)
            )
        if number is None or number == self._request.ref.version:
            return None
        try:
            return self._registry.version(VersionRef(model.name, number))
        except NotServed:
            if asked.isdecimal():
                raise
            return None

    def _findings(
        self, model: RegisteredModel, version: ModelVersion, beside: ModelVersion | None, host: Host
    ) -> Findings:
        task = self._task(version)
        if isinstance(task, Performance):
            return Findings(candidate=task)
        task = self._with_champion(self._with_evaluation(task, model, version), beside)
        with turn(self._lock, self._request.patience_seconds):
            started = time.monotonic()
            findings = self._measured(task)
            left_seconds = task.deadline_seconds - (time.monotonic() - started)
            return self._with_cost_of_champion(findings, task, left_seconds, host)

    def _task(self, version: ModelVersion) -> Task | Performance:
        """What to measure of the candidate; its `problem` where its files cannot even be fetched."""
        policy = self._request.policy
        try:
            root = self._cache.fetch(version).root
        except ArtifactRefused as refused:
            return Performance(version.ref.version, problem=str(refused))
        ceiling_mb = policy.memory_ceiling_mb
        limit_bytes = (
            ceiling_mb * _MEGABYTE if ceiling_mb else psutil.virtual_memory().available * _MEMORY_SHARE
        )
        return Task(
            version=version.ref.version,
            root=root,
            digest=version.tags.get(Tag.DIGEST),
            threads=self._request.threads or cpu_count(),
            policy=policy,
            deadline_seconds=policy.deadline_seconds,
            memory_bytes=int(limit_bytes),
        )

    def _with_evaluation(self, task: Task, model: RegisteredModel, version: ModelVersion) -> Task:
        """The declared set, for a version that has recorded nothing of its own to be asked."""
        declared = evaluation.declared(model.tags, version.tags)
        if declared is None or _is_recorded(task.root):
            return task
        try:
            path = evaluation.download(self._client, declared, self._work_folder / "evaluation.npz")
        except EvaluationRefused:  # the validation's finding
            return task
        return replace(task, evaluation=path)

    def _with_champion(self, task: Task, beside: ModelVersion | None) -> Task:
        if beside is None:
            return task
        task = replace(task, champion_version=beside.ref.version)
        try:
            return replace(task, champion_root=self._cache.fetch(beside).root)
        except ArtifactRefused as refused:
            return replace(task, champion_problem=str(refused))

    def _measured(self, task: Task) -> Findings:
        """As a process of its own found it; without the champion where that is what it died of."""
        self._progress("measuring")
        started = time.monotonic()
        findings = self._in_process(task, "findings")
        step, left_seconds = findings.step, task.deadline_seconds - (time.monotonic() - started)
        if findings.interrupted is None or step is None or step.side is not Side.CHAMPION:
            return findings
        problem = f"{findings.interrupted} while it was {step.doing}"
        alone = replace(task, champion_root=None, champion_problem=problem)
        return self._in_process(
            replace(alone, deadline_seconds=max(left_seconds, _LEAST_SECONDS)), "findings"
        )

    def _with_cost_of_champion(
        self, findings: Findings, task: Task, left_seconds: float, host: Host
    ) -> Findings:
        """Memory and first call of the champion too: from its baseline, else measured as the candidate's."""
        champion = findings.champion
        if champion is None or champion.problem is not None or task.champion_root is None:
            return findings
        known = self._known(champion, host)
        if known is None and left_seconds >= _LEAST_SECONDS:
            self._progress("measuring the other version alone")
            known = self._in_process(_of_champion(task, task.champion_root, left_seconds), "alone").candidate
        if known is None or known.memory_mb is None:
            return findings
        champion = replace(
            champion,
            load_seconds=known.load_seconds,
            first_call_ms=known.first_call_ms,
            memory_mb=known.memory_mb,
        )
        return replace(findings, champion=champion)

    def _known(self, champion: Performance, host: Host) -> Performance | None:
        """What this host found of the same files before."""
        if self._engine is None:
            return None
        known = baseline.baseline(self._engine, self._request.ref.model, champion.version, host.id)
        if known is None or known.host_id != host.id or known.digest != champion.digest:
            return None
        report = known.report()
        return report.candidate if report else None

    def _in_process(self, task: Task, name: str) -> Findings:
        task_path, found_path = self._work_folder / f"{name}.task.json", self._work_folder / f"{name}.json"
        task_path.write_bytes(TASKS.dump_json(task))
        found_path.unlink(missing_ok=True)
        arguments = [str(task_path), str(found_path)]
        ended = run_confined(
            _MODULE, arguments, self._work_folder / "log", task.deadline_seconds, task.memory_bytes
        )
        findings = FINDINGS.validate_json(found_path.read_bytes()) if found_path.exists() else Findings()
        if ended is None:
            return findings
        return replace(findings, interrupted=ended.reason, is_late=ended.is_late)


def _of_champion(task: Task, root: Path, left_seconds: float) -> Task:
    """The champion in the candidate's place, alone."""
    return replace(
        task,
        version=task.champion_version or "",
        root=root,
        digest=None,
        champion_version=None,
        champion_root=None,
        deadline_seconds=left_seconds,
        alone=True,
    )


def _is_recorded(root: Path) -> bool:
    try:
        artifact = inspect_artifact(root)
    except ArtifactRefused:  # said when it is loaded
        return True
    return artifact.golden is not None or artifact.example is not None
