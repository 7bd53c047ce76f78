"""Flow `roll-back-model`: a model goes back to a version that was good, and what became of that is told.

Thin. Works on a rollback that is on record (`rollback_id`), or begins one. Instant and emergency ones are
serving's to carry out; this flow asks it to, so that the same checks hold however somebody asks.
"""

import getpass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State as RunState
from prefect.states import Completed, Failed

from flows.catalog.soundness import checker, misfit
from flows.health.probe import client as serving_client
from flows.publication import artifact_key
from flows.rollout.descent import NoDescent, ends
from flows.rollout.health import Answer, is_for_health
from flows.rollout.retreat_parts import RetreatParts
from flows.rollout.retreating import Outcome, work
from flows.trust import trust
from flows.wiring import Wiring, wired
from serving.core.errors import (
    ChangeRefused,
    InvalidRequest,
    NotServed,
    RegistryUnavailable,
    StoreUnavailable,
)
from serving.core.model import Alias, Tag, VersionRef
from serving.core.traffic import Split, read_tag
from serving.store import destination, overrides, rollbacks
from serving.store.destination import Wanted
from serving.store.rollbacks import RollbackRecord, State, Step, Strategy
from serving.store.snapshot import public_settings

# Parameters of an event trigger arrive as text, those of a command line as numbers.
Number = float | int | str | None
_HOLDER = "rollback:"


@flow(name="roll-back-model", flow_run_name="roll back {model} {rollback_id}", validate_parameters=True)
def roll_back_model(
    rollback_id: str | None = None,
    model: str | None = None,
    strategy: str = "instant",
    version: Number = None,
    restore_point: str | None = None,
    at: str | None = None,
    failing: Number = None,
    requested_by: str | None = None,
    reason: str | None = None,
) -> RunState[Any]:
    """Go back. With `failing`, only while that version is champion and its health asks for it."""
    actor = _text(requested_by) or f"unverified:{getpass.getuser()}"
    with wired() as wiring:
        try:
            if (known := _text(rollback_id)) is not None:
                return _worked_on(wiring, rollbacks.get(wiring.engine, known))
            if (name := _text(model)) is None:
                return Failed(name="Refused", message="name a model, or a rollback that is on record")
            if (failed := _text(failing)) is not None and (held := _held(wiring, name, failed)) is not None:
                return Completed(name="Held", message=held)
            wanted = Wanted(restore_point=_text(restore_point), version=_text(version), at=_moment(at))
            why = _text(reason) or "asked for by hand"
            if Strategy(strategy) is not Strategy.GRADUAL:
                return _asked_of_serving(wiring, name, strategy, wanted, actor, why)
            return _worked_on(wiring, _entered(wiring, name, wanted, actor, why))
        except (NotServed, ChangeRefused, InvalidRequest, ValueError) as refusal:
            return Failed(name="Refused", message=str(refusal))
        except (RegistryUnavailable, StoreUnavailable) as error:
            # What was begun stays open in the store: the next run takes it up.
            return Failed(name="Unavailable", message=str(error))


def _worked_on(wiring: Wiring, record: RollbackRecord) -> RunState[Any]:
    log = get_run_logger()
    holder = f"{_HOLDER}{runtime.flow_run.id or 'local'}"
    outcome = work(record, parts_of(wiring), wiring.leases, holder, log.info)
    create_markdown_artifact(
        key=artifact_key("rollback", record.model), markdown=_markdown(outcome), description=outcome.reason
    )
    name = outcome.record.state.title() if outcome.is_ours else "Joined"
    end = Completed if outcome.is_good else Failed
    return end(name=name, message=f"rollback {record.id}: {outcome.reason}")


def parts_of(wiring: Wiring) -> RetreatParts:
    """What a rollback works with: targets are opened in a process of their own before traffic goes there."""
    check = checker(wiring.settings, wiring.client, wiring.registry)

    def examine(record: RollbackRecord, digest: str | None) -> str | None:
        target = check(VersionRef(record.model, record.to_version), digest)
        if not target.is_sound or record.options.get("allow_signature_change"):
            return None if target.is_sound else target.reason
        return misfit(target, check(VersionRef(record.model, record.from_version), None))

    return RetreatParts(
        wiring.engine,
        wiring.registry,
        wiring.guard,
        wiring.clock,
        examine,
        settings=public_settings(wiring.settings),
    )


def _entered(wiring: Wiring, model: str, wanted: Wanted, actor: str, reason: str) -> RollbackRecord:
    """A gradual rollback in the books. Raises what says that there is nowhere to go."""
    goal = destination.resolve(wiring.engine, model, wanted)
    registered = wiring.registry.registered_model(model)
    split = read_tag(registered.tags.get(Tag.TRAFFIC))
    percent = split.percent if isinstance(split, Split) else None
    found = ends(registered.aliases, percent, goal.version if goal is not None else None)
    if isinstance(found, NoDescent):
        raise ChangeRefused(f"'{model}': {found.reason}")
    now = wiring.clock.now()
    record = RollbackRecord(
        id=uuid4().hex,
        model=model,
        strategy=Strategy.GRADUAL,
        from_version=found.left,
        to_version=found.target,
        restore_point=goal.point.id if goal is not None and goal.point is not None else None,
        state=State.OPEN,
        step=Step.REQUESTED,
        actor=actor,
        reason=reason,
        created_at=now,
        updated_at=now,
    )
    return rollbacks.enter(wiring.engine, record)


def _held(wiring: Wiring, model: str, failing: str) -> str | None:
    """Why health does not send the model back; None where it does."""
    laid = overrides.last_laid(wiring.engine, model, Alias.CHAMPION)
    answer = is_for_health(
        is_allowed=wiring.settings.rollback_on_critical,
        failing=failing,
        champion=wiring.registry.alias(model, Alias.CHAMPION),
        went_back_to=laid.answer_with if laid is not None else None,
    )
    return None if answer is Answer.GO_BACK else f"version {failing} of {model} stays: {answer}"


def _asked_of_serving(
    wiring: Wiring, model: str, strategy: str, wanted: Wanted, actor: str, reason: str
) -> RunState[Any]:
    key_file = wiring.settings.admin_key_file
    key = key_file.read_text().strip() if key_file.exists() else None
    wish = {
        "model": model,
        "strategy": strategy,
        "version": wanted.version,
        "restore_point": wanted.restore_point,
        "at": wanted.at.isoformat() if wanted.at is not None else None,
        "reason": f"{reason} ({actor})",
    }
    asked = {name: value for name, value in wish.items() if value is not None}
    url = wiring.settings.serving_url
    with serving_client(url, key, trust(wiring.settings, url)) as serving:
        try:
            answer = serving.post("/api/v2/rollback", json=asked)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return Failed(name="Unavailable", message=f"{url}: {error!r}")
    if answer.status_code != httpx.codes.ACCEPTED:
        return Failed(name="Refused", message=str(told.get("error", answer.text)))
    message = f"version {told['from']} → {told['to']}; rollback {told['rollback_id']}"
    return Completed(name="RolledBack", message=message)


def _markdown(outcome: Outcome) -> str:
    record = outcome.record
    lines = [
        f"# {record.model}: {record.strategy} rollback, {record.state}",
        "",
        outcome.reason,
        "",
        f"- from version {record.from_version} to {record.to_version}",
        f"- asked for by {record.actor}: {record.reason}",
        f"- rollback {record.id}, restore point {record.restore_point or 'none'}",
        "",
        "| step | what was found |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {step} | {found} |" for step, found in record.evidence.items())])


def _text(value: object) -> str | None:
    """Text of a parameter; nothing and blanks are None."""
    text = "" if value is None else str(value).strip()
    return text if text and text.lower() != "none" else None


def _moment(given: str | None) -> datetime | None:
    if (text := _text(given)) is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
