"""A drift check of one model with everything it touches: registry, inference log, store.

Called by the flow and by the command line. Knows no Prefect, so that the command starts quickly.
"""

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.catalog.evaluation import EvaluationRefused, declared, download, read_evaluation
from flows.drift.verdict import DriftReport, Verdict
from flows.settings import FlowSettings
from flows.wiring import Wiring
from serving.core.datatypes import Array
from serving.core.errors import SignalboxError
from serving.core.model import Alias, VersionRef
from serving.store.inference_log import log_folder


class DriftParameterRefused(SignalboxError):
    """A parameter of a drift check is none; the message says which and why."""


@dataclass(frozen=True, slots=True)
class DriftAsked:
    """What to check: the newest `rows` of a model, of one version where it is named."""

    model: str
    version: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class DriftDone:
    """A stored report, and Evidently's pages where there was drift."""

    report: DriftReport
    page: Path | None


@dataclass(frozen=True, slots=True)
class _Reference:
    version: str | None
    inputs: Mapping[str, Array] | None


def asked(
    settings: FlowSettings, model: str, version: int | str | None = None, rows: int | str | None = None
) -> DriftAsked:
    """Parameters as people, command lines and event triggers give them; blanks are defaults."""
    given = str(rows or "").strip() or str(settings.drift_rows)
    if not given.isdecimal() or int(given) < settings.drift_minimum_rows:
        raise DriftParameterRefused(
            f"rows must be a whole number of at least {settings.drift_minimum_rows}, not '{given}'"
        )
    return DriftAsked(model.strip(), str(version or "").strip() or None, int(given))


def check_drift(wiring: Wiring, asked: DriftAsked) -> DriftDone:
    """Check one model and store what was found; an unusable evaluation set is a verdict too.

    Raises:
        NotServed: the registry has no such model or version.
        RegistryUnavailable, StoreUnavailable: MLflow or the store did not answer.
    """
    # Heavy libraries load here, and not when a command line or a worker looks at this module.
    from flows.drift.check import Checked, Limits, check
    from flows.drift.record import record

    settings = wiring.settings
    try:
        reference = _reference(wiring, asked)
    except EvaluationRefused as refused:
        report = DriftReport(asked.model, asked.version, Verdict.NOT_MEASURED, str(refused), None, None)
        checked = Checked(report, None)
    else:
        checked = check(
            log_folder(settings.home),
            asked.model,
            version=reference.version,
            reference=reference.inputs,
            limits=Limits(rows=asked.rows, minimum_rows=settings.drift_minimum_rows),
        )
    actor = f"unverified:{getpass.getuser()}"
    page = record(wiring.engine, settings.home, checked, actor, wiring.clock.now())
    return DriftDone(checked.report, page)


def _reference(wiring: Wiring, asked: DriftAsked) -> _Reference:
    """The declared evaluation set of the version, by default of the champion.

    With a set only inputs are compared, and rows of every version count. Without one, outputs are
    compared too, so only rows of the version do.
    """
    registered = wiring.registry.registered_model(asked.model)
    version = asked.version or registered.aliases.get(Alias.CHAMPION)
    tags = wiring.registry.version(VersionRef(asked.model, version)).tags if version else {}
    uri = declared(registered.tags, tags)
    if uri is None:
        return _Reference(version, None)
    with TemporaryDirectory() as folder:
        path = download(wiring.client, uri, Path(folder) / "evaluation.npz")
        return _Reference(asked.version, read_evaluation(path).inputs)
