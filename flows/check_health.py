"""Flow `check-health`: the functional level of every served model, measured through serving itself.

A model that declares no evaluation set is judged by the labels of its live answers alone, and while these
are few it has no functional level; nothing is made up for it.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.states import Completed, Failed

from flows.catalog.evaluation import EvaluationRefused, EvaluationSet, declared, download, read_evaluation
from flows.catalog.facts import Metric
from flows.catalog.scores import metric_of, right, unscorable
from flows.health.functional import Measured, graded, unanswered
from flows.health.labelled import Labelled, worse
from flows.health.labelled import graded as graded_by_labels
from flows.health.probe import Answered, Unanswered, ask, client
from flows.health_tags import health_tagged
from flows.trust import trust
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, RegistryUnavailable, SignalboxError
from serving.core.health import Level, LevelReport, Status
from serving.core.model import Alias, Tag, Variant, VersionRef
from serving.core.scored import Scored
from serving.store import levels, outbox, policies, reports
from serving.store.database import writing
from serving.store.levels import StoredLevel
from serving.store.observed import labelled_lately
from serving.store.outbox import Notice, Severity
from serving.store.registry import RegisteredModel
from serving.store.reports import Report

KIND = "functional"
LABELLED_KIND = "functional-labelled"
EVENT = "signalbox.health.critical"
_ROWS = 64


@flow(name="check-health")
def check_health() -> State[Any]:
    """Measure and store the functional level of every model that declares how."""
    log = get_run_logger()
    with wired() as wiring:
        try:
            seen = checked(wiring)
        except SignalboxError as error:
            return Failed(name="Unavailable", message=str(error))
    for sentence in seen:
        log.info("%s", sentence)
    return Completed(message="; ".join(seen) or "no registered model has a champion")


def checked(wiring: Wiring, only: str | None = None) -> list[str]:
    """One sentence per model with a champion, or of that model alone; then one per health tag written.

    Raises `RegistryUnavailable` and `StoreUnavailable`.
    """
    key_file = wiring.settings.admin_key_file
    key = key_file.read_text().strip() if key_file.exists() else None
    url = wiring.settings.serving_url
    with client(url, key, trust(wiring.settings, url)) as serving:
        models = wiring.registry.registered_models()
        wanted = [model for name, model in sorted(models.items()) if only in (None, name)]
        champions = [model for model in wanted if Alias.CHAMPION in model.aliases]
        seen = [sentence for model in champions for sentence in _checked(wiring, serving, model)]
        return [*seen, *health_tagged(wiring, serving, champions)]


def _checked(wiring: Wiring, serving: Any, model: RegisteredModel) -> Iterator[str]:
    champion = model.aliases[Alias.CHAMPION]
    labelled = _by_labels(wiring, model, champion)
    try:
        evaluation = _declared(wiring, model)
    except (EvaluationRefused, RegistryUnavailable, NotServed) as error:  # the others have their turn
        yield from _settled(wiring, model, labelled, champion, f"not measured, {error}")
        return
    if evaluation is None:
        yield from _settled(wiring, model, labelled, champion, "no evaluation set is declared")
        return
    rows = min(_ROWS, evaluation.rows)
    answer = ask(serving, model.name, {name: array[:rows] for name, array in evaluation.inputs.items()})
    if isinstance(answer, Unanswered) and answer.is_down:  # says nothing of the model; serving's own alarm
        yield from _settled(wiring, model, labelled, champion, f"not measured, {answer.problem}")
        return
    if isinstance(answer, Answered) and answer.variant == Variant.FALLBACK:
        stand_in = f"version {answer.version} had to answer in place of the champion"
        answer = Unanswered(stand_in, is_down=False)
    if isinstance(answer, Answered) and (problem := _unscorable(model, answer, evaluation.labels[:rows])):
        yield from _settled(wiring, model, labelled, champion, f"not measured, {problem}")
        return
    report, version = _report(wiring, model, answer, evaluation.labels[:rows])
    if labelled is not None and version == champion:
        report = worse(report, labelled)
    yield from _settled(wiring, model, report, version, "")


def _settled(
    wiring: Wiring, model: RegisteredModel, report: LevelReport | None, version: str | None, otherwise: str
) -> Iterator[str]:
    """Keep the level, and tell people when it turns critical; without one, say why there is none."""
    if report is None:
        yield f"{model.name}: {otherwise}"
        return
    was_critical = _is_critical(wiring, model.name)
    levels.set_level(wiring.engine, StoredLevel(model.name, Level.FUNCTIONAL, version, report))
    if report.status is Status.CRITICAL and not was_critical:
        _alert(wiring, model.name, version, report.message)
    yield f"{model.name}: {report.status}, {report.message}"


def _by_labels(wiring: Wiring, model: RegisteredModel, version: str) -> LevelReport | None:
    """What labels say of the champion's answers; None while there are too few of them."""
    now, born = wiring.clock.now(), datetime.fromtimestamp(model.created_ms / 1000, UTC)
    live = labelled_lately(wiring.engine, model.name, version, now, born)
    if live is None:
        return None
    scored = live.stats.scored
    earlier = reports.latest(wiring.engine, LABELLED_KIND, model.name, version)
    if earlier is None or earlier.created_at < born:
        _remember(wiring, LABELLED_KIND, model.name, version, {"scored": scored.as_json()})
        first = None
    else:
        first = Scored.from_json(earlier.body["scored"])  # type: ignore[arg-type]
    return graded_by_labels(Labelled(scored, live.coverage, first), _floor(wiring, model.name), now)


def _unscorable(model: RegisteredModel, answer: Answered, labels: Any) -> str | None:
    """Why these answers have no accuracy, in words, else None."""
    if metric_of(model.tags.get(Tag.MODEL_TYPE), answer.output) is not Metric.ACCURACY:
        return "only a classifier has an accuracy"
    return unscorable(Metric.ACCURACY, answer.output, labels)


def _is_critical(wiring: Wiring, model: str) -> bool:
    """Whether the last verdict was that bad already: people are told once, not every minute."""
    return any(
        (stored.model, stored.level, stored.report.status) == (model, Level.FUNCTIONAL, Status.CRITICAL)
        for stored in levels.all_levels(wiring.engine)
    )


def _report(
    wiring: Wiring, model: RegisteredModel, answer: Answered | Unanswered, labels: Any
) -> tuple[LevelReport, str | None]:
    now = wiring.clock.now()
    if isinstance(answer, Unanswered):
        return unanswered(answer.problem, now), model.aliases[Alias.CHAMPION]
    accuracy = float(right(answer.output, labels).mean())
    earlier = reports.latest(wiring.engine, KIND, model.name, answer.version)
    if earlier is None:
        _remember(wiring, KIND, model.name, answer.version, {"accuracy": accuracy, "rows": len(labels)})
    baseline = float(earlier.body["accuracy"]) if earlier is not None else None  # type: ignore[arg-type]
    measured = Measured(accuracy, len(labels), baseline)
    return graded(measured, _floor(wiring, model.name), now), answer.version


def _floor(wiring: Wiring, model: str) -> float:
    """The model's own floor, else that of the settings."""
    kept = policies.of_model(wiring.engine, model).get(policies.HEALTH, {})
    return float(kept.get("min_functional_accuracy", wiring.settings.min_functional_accuracy))


def _remember(wiring: Wiring, kind: str, model: str, version: str, body: Mapping[str, Any]) -> None:
    """The first measurement of a version is what later ones are compared with."""
    report = Report(
        id=uuid4().hex,
        kind=kind,
        model=model,
        version=version,
        verdict="baseline",
        created_at=wiring.clock.now(),
        body=body,
    )
    reports.save(wiring.engine, report)


def _declared(wiring: Wiring, model: RegisteredModel) -> EvaluationSet | None:
    ref = VersionRef(model.name, model.aliases[Alias.CHAMPION])
    uri = declared(model.tags, wiring.registry.version(ref).tags)
    if uri is None:
        return None
    path = wiring.settings.home / "cache" / "evaluation" / f"{sha256(uri.encode()).hexdigest()}.npz"
    if not path.exists():
        _fetch(wiring, uri, path)
    return read_evaluation(path)


def _fetch(wiring: Wiring, uri: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    download(wiring.client, uri, partial)
    partial.rename(path)


def _alert(wiring: Wiring, model: str, version: str | None, problem: str) -> None:
    notice = Notice(
        kind="health_critical",
        severity=Severity.CRITICAL,
        title=f"{model} is not healthy: {problem}",
        model=model,
        version=version,
        facts={"level": str(Level.FUNCTIONAL), "problem": problem},
        dedup_key=f"health:{model}:{Level.FUNCTIONAL}",
    )
    with writing(wiring.engine) as connection:
        outbox.enqueue(connection, notice, wiring.clock.now())
    # Only a run has a Prefect to tell; the version is what flow `roll-back-model` goes back from.
    if version is not None and FlowRunContext.get() is not None:
        emit_event(**critical_event(model, version, problem))


def critical_event(model: str, version: str, problem: str) -> dict[str, Any]:
    """What Prefect is told of a champion whose health turned critical, as `emit_event` takes it."""
    return {
        "event": EVENT,
        "resource": {"prefect.resource.id": f"signalbox.model.{model}", "prefect.resource.name": model},
        "payload": {"model": model, "version": version, "problem": problem},
    }
