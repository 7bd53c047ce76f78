"""Validating one version: fetch it and the champion, measure both in a clean process, judge.

Called by the promotion and validation flows and by `signalbox validate`. What is wrong with the
version is a verdict, whatever it does; only a registry that cannot be read is an error.
"""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from flows.catalog import evaluation
from flows.catalog.checks import judge
from flows.catalog.evaluation import EvaluationRefused
from flows.catalog.facts import Facts, Loaded
from flows.catalog.kin import siblings
from flows.catalog.logged import NothingLogged, recent_inputs
from flows.catalog.policy import ValidationPolicy
from flows.catalog.process import measured
from flows.catalog.report import ValidationReport
from flows.catalog.task import Kin, Task
from flows.catalog.verdict import overall
from serving.core.clock import Clock, SystemClock
from serving.core.cpus import cpu_count
from serving.core.errors import ArtifactRefused, NotServed
from serving.core.model import Alias, Tag, VersionRef
from serving.store.artifacts import ArtifactCache
from serving.store.inference_log import log_folder
from serving.store.registry import ModelVersion, RegisteredModel, Registry, connect
from serving.store.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class Validation:
    """What to validate. `champion` is the version to compare with, by default the registry's champion;
    `threads` is per inference, 0 for all CPUs of this process, as serving has it. The process that
    looks may take `deadline_seconds` and hold `memory_mb`, both versions and libraries included.
    """

    ref: VersionRef
    policy: ValidationPolicy = field(default_factory=ValidationPolicy)
    champion: str | None = None
    deadline_seconds: float = 40.0
    memory_mb: float = 4096.0
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
        self._log = log_folder(settings.home)

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
            task = self._with_logged(self._with_siblings(task, version))
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
            memory_mb=self._request.memory_mb,
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

    def _with_siblings(self, task: Task, version: ModelVersion) -> Task:
        found = [self._kin(sibling) for sibling in siblings(self._registry, version)]
        return replace(task, kin=tuple(found))

    def _kin(self, sibling: ModelVersion) -> Kin:
        name, digest = str(sibling.ref), sibling.tags.get(Tag.DIGEST)
        try:
            return Kin(name, self._cache.fetch(sibling).root, digest)
        except ArtifactRefused as refused:
            return Kin(name, None, digest, str(refused))

    def _with_logged(self, task: Task) -> Task:
        rows = self._request.policy.replay_rows
        if not rows:
            return task
        try:
            path = recent_inputs(self._log, self._request.ref.model, rows, self._work_folder / "logged.npz")
        except NothingLogged as nothing:
            return replace(task, logged_problem=str(nothing))
        return replace(task, logged=path)
