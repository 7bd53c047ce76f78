"""Rollouts: one row per promotion, at most one open per model, whoever asked for it.

Every entry point creates the row or joins the open one. Changes of an open row are fenced by the
model's lease; a terminal state is written once. Only a person's command needs no lease: it is a wish.

Long because everything that writes this row stands together: each guards the same few rules.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, Row, select, update

from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, freezes, outbox, policies, rollbacks, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.leases import Lease, fence
from serving.store.outbox import Notice, Severity
from serving.store.text import JsonValue, json_text, read_optional_time, read_time, time_text

STAGED, DIRECT = "staged", "direct"

_table = schema.rollouts
_CHALLENGER = "was_challenger"
# The step of a status in which a person's approval is waited for.
WAITS_FOR_APPROVAL = "approval"
# A resting rollout is looked at every minute or two; more at once is a clock that was stepped.
LONGEST_REST_SECONDS = 150.0


class State(StrEnum):
    OPEN = "open"
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self is not State.OPEN


class Phase(StrEnum):
    """The durable steps of a promotion, in order; where a later run takes up an abandoned one.

    Only a staged one comes through `STAGES_PASSED`.
    """

    REQUESTED = "requested"
    VALIDATED = "validated"
    BENCHMARKED = "benchmarked"
    RESTORE_POINT = "restore_point"
    STAGES_PASSED = "stages_passed"
    ALIAS_MOVED = "alias_moved"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who wants which version promoted, under which policy, and for a staged rollout by which plan.

    `is_challenger` tells whether alias `challenger` names the version: taking it away withdraws the request.
    """

    model: str
    version: str
    strategy: str
    requested_by: str
    policy: Mapping[str, JsonValue] = field(default_factory=dict)
    spec: Mapping[str, JsonValue] | None = None
    is_challenger: bool = False


class Command(StrEnum):
    """What a person may ask of an open staged rollout."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Asked:
    """The last command somebody gave; `step` and `stage` are where the rollout was that they saw.

    `until` is the deadline of an approval.
    """

    id: str
    command: Command
    by: str
    at: datetime
    step: str
    stage: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """`spec` is what a staged rollout wants, `status` how far it is; both None of a direct one."""

    id: str
    model: str
    version: str
    strategy: str
    state: State
    phase: Phase
    requested_by: str
    reason: str
    policy: Mapping[str, Any]
    restore_point: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    spec: Mapping[str, Any] | None = None
    status: Mapping[str, Any] | None = None
    asked: Asked | None = None

    @property
    def was_challenger(self) -> bool:
        """Whether alias `challenger` named the version when it was asked for."""
        return bool((self.evidence or {}).get(_CHALLENGER))


@dataclass(frozen=True, slots=True)
class Entry:
    """The open rollout of a model. `created` tells whether this request opened it."""

    rollout: Rollout
    created: bool


def enter(engine: Engine, request: Request, asked_at: datetime, now: datetime) -> Entry:
    """Open a rollout, or join the one that is open, whichever version that promotes.

    A rollout of the same version that ended after `asked_at` is the answer to this request too: of
    several people who ask at once, the slowest must not start a second one. Raises `ChangeRefused` for a
    model that is frozen or on its way back: no rollout of it is opened then.
    """
    values = {
        "id": uuid4().hex,
        "model": request.model,
        "version": request.version,
        "strategy": request.strategy,
        "state": str(State.OPEN),
        "phase": str(Phase.REQUESTED),
        "open_model": request.model,
        "requested_by": request.requested_by,
        "reason": "",
        "spec": json_text(request.spec) if request.spec is not None else None,
        "evidence": json_text({_CHALLENGER: True}) if request.is_challenger else None,
        "created_at": time_text(now),
        "updated_at": time_text(now),
    }
    with writing(engine) as connection:
        if (answered := _ended_since(connection, request, asked_at)) is not None:
            return Entry(answered, created=False)
        if connection.execute(_open_of(request.model)).one_or_none() is None:
            freezes.refuse_frozen(connection, request.model, now)
            rollbacks.refuse_under_way(connection, request.model)
        policy = {**policies.get(connection, request.model, policies.PROMOTION), **request.policy}
        created = insert_new(connection, _table, values | {"policy": json_text(policy)})
        if created:
            details: dict[str, JsonValue] = {"rollout": values["id"], "step": "requested"}
            _audit(connection, request.model, request.version, request.requested_by, details, now)
        row = connection.execute(_open_of(request.model)).one()
        return Entry(_rollout(row), created)


def specify(engine: Engine, rollout: Rollout, spec: Mapping[str, JsonValue]) -> Rollout:
    """Give an open staged rollout its plan, where whoever asked for it could not make one."""
    lacks = (_is_open(rollout.id), _table.c.spec.is_(None))
    with writing(engine) as connection:
        connection.execute(update(_table).where(*lacks).values(spec=json_text(spec)))
        return _rollout(_row(connection, rollout.id))


def advance(
    engine: Engine,
    rollout: Rollout,
    phase: Phase,
    lease: Lease,
    now: datetime,
    *,
    restore_point: Mapping[str, JsonValue] | None = None,
    evidence: Mapping[str, JsonValue] | None = None,
) -> Rollout:
    """Note a finished step. Raises `ChangeRefused` when the lease is no longer this holder's."""
    values: dict[str, Any] = {"phase": str(phase), "updated_at": time_text(now)}
    if restore_point is not None:
        values["restore_point"] = json_text(restore_point)
    if evidence is not None:
        values["evidence"] = json_text(evidence)
    with writing(engine) as connection:
        fence(connection, lease)
        connection.execute(update(_table).where(_is_open(rollout.id)).values(values))
        details: dict[str, JsonValue] = {"rollout": rollout.id, "step": str(phase)}
        _audit(connection, rollout.model, rollout.version, lease.holder, details, now)
        return _rollout(_row(connection, rollout.id))


def note(
    engine: Engine,
    rollout: Rollout,
    status: Mapping[str, JsonValue],
    lease: Lease,
    now: datetime,
    *,
    step: Mapping[str, JsonValue] | None = None,
    notice: Notice | None = None,
) -> Rollout:
    """Write how far a staged rollout is; a `step` is audited, and announced with a `notice`.

    Raises `ChangeRefused` when the lease is no longer this holder's.
    """
    values = {"status": json_text(status), "updated_at": time_text(now)}
    with writing(engine) as connection:
        fence(connection, lease)
        changed = connection.execute(update(_table).where(_is_open(rollout.id)).values(values))
        if changed.rowcount and step is not None:
            details: dict[str, JsonValue] = {"rollout": rollout.id, **step}
            _audit(connection, rollout.model, rollout.version, lease.holder, details, now)
        if changed.rowcount and notice is not None:
            outbox.enqueue(connection, notice, now)
        return _rollout(_row(connection, rollout.id))


def ask(engine: Engine, rollout_id: str, command: Command, by: str, now: datetime) -> Rollout:
    """Leave a command for whoever works on the rollout; the last one counts.

    A staged rollout without a plan was never begun: nobody is there to obey, so `abort` ends it here, and
    whoever begins it at this moment finds it over.

    Raises `NotServed` for an unknown id, `ChangeRefused` for a rollout that is over or not staged, or an
    approval that nothing waits for, or no longer.
    """
    with writing(engine) as connection:
        rollout = _rollout(_row(connection, rollout_id, locked=True))
        if rollout.state.is_terminal:
            raise ChangeRefused(f"rollout {rollout.id} is over: {rollout.state}, {rollout.reason}")
        if rollout.strategy == DIRECT:
            raise ChangeRefused(f"rollout {rollout.id} is direct: there is nothing to {command}")
        if command is Command.ABORT and rollout.spec is None:
            reason = f"aborted by {by} before it began"
            notice = _aborted(rollout, reason)
            return _finished(connection, rollout, State.ROLLED_BACK, reason, by, now, notice)
        until = _approvable_until(rollout, now) if command is Command.APPROVE else None
        status = rollout.status or {}
        step, stage = str(status.get("step", "")), status.get("stage")
        seen = {"step": step, "stage": stage, "until": time_text(until) if until else None}
        asked = {"id": uuid4().hex, "command": str(command), "by": by, "at": time_text(now), **seen}
        values = {"command": json_text(asked)}
        connection.execute(update(_table).where(_is_open(rollout.id)).values(values))
        details: dict[str, JsonValue] = {"rollout": rollout.id, "step": f"asked to {command}", "at": step}
        details |= {"stage": stage, "until": seen["until"]}
        _audit(connection, rollout.model, rollout.version, by, details, now)
        return _rollout(_row(connection, rollout.id))


def finish(
    engine: Engine,
    rollout: Rollout,
    state: State,
    reason: str,
    actor: str,
    now: datetime,
    notice: Notice | None,
) -> Rollout:
    """Write the terminal state, its audit row and its notice, once; a finished rollout stays as it is."""
    with writing(engine) as connection:
        return _finished(connection, rollout, state, reason, actor, now, notice)


def _finished(
    connection: Connection,
    rollout: Rollout,
    state: State,
    reason: str,
    actor: str,
    now: datetime,
    notice: Notice | None,
) -> Rollout:
    values = {
        "state": str(state),
        "reason": reason,
        "open_model": None,
        "updated_at": time_text(now),
        "finished_at": time_text(now),
    }
    changed = connection.execute(update(_table).where(_is_open(rollout.id)).values(values))
    if changed.rowcount:
        details: dict[str, JsonValue] = {"rollout": rollout.id, "step": str(state), "reason": reason}
        _audit(connection, rollout.model, rollout.version, actor, details, now)
        if notice is not None:
            outbox.enqueue(connection, notice, now)
    return _rollout(_row(connection, rollout.id))


def _aborted(rollout: Rollout, reason: str) -> Notice:
    """Told as a refusal, as every end is of a version that never answered anybody."""
    return Notice(
        kind="refused",
        severity=Severity.WARNING,
        title=f"The promotion of version {rollout.version} of {rollout.model} was aborted",
        model=rollout.model,
        version=rollout.version,
        facts={
            "reason": reason,
            "rollout": rollout.id,
            "requested_by": rollout.requested_by,
            "to": rollout.version,
        },
        dedup_key=f"rollout:{rollout.id}",
    )


def get(engine: Engine, rollout_id: str) -> Rollout:
    """Raises `NotServed` for an unknown id."""
    with reading(engine) as connection:
        return _rollout(_row(connection, rollout_id))


def named(engine: Engine, prefix: str) -> Rollout:
    """The rollout whose id begins so. Raises `NotServed` where none does, or several do."""
    query = select(_table).where(_table.c.id.startswith(prefix, autoescape=True)).limit(2)
    with reading(engine) as connection:
        found = [_rollout(row) for row in connection.execute(query)]
    if len(found) != 1:
        raise NotServed(f"{'several rollouts begin' if found else 'no rollout begins'} with '{prefix}'")
    return found[0]


def open_rollouts(engine: Engine) -> list[Rollout]:
    with reading(engine) as connection:
        rows = connection.execute(select(_table).where(_table.c.open_model.is_not(None)))
        return [_rollout(row) for row in rows]


def recent(engine: Engine, model: str | None = None, limit: int = 50) -> list[Rollout]:
    """Newest first."""
    query = select(_table).order_by(_table.c.created_at.desc()).limit(limit)
    if model is not None:
        query = query.where(_table.c.model == model)
    with reading(engine) as connection:
        return [_rollout(row) for row in connection.execute(query)]


def _approvable_until(rollout: Rollout, now: datetime) -> datetime:
    """The deadline of the approval that the rollout waits for."""
    spec, status = rollout.spec or {}, rollout.status or {}
    if status.get("step") != WAITS_FOR_APPROVAL:
        at = str(status.get("step") or rollout.phase).replace("_", " ")
        raise ChangeRefused(f"rollout {rollout.id} waits for no approval: it is at '{at}'")
    deadline_seconds = spec["stage_deadline_seconds"]
    since_look = (now - read_time(status["looked_at"])).total_seconds()
    rested = status["rested_seconds"] + min(max(since_look, 0.0), LONGEST_REST_SECONDS)
    if rested >= deadline_seconds:
        raise ChangeRefused(
            f"rollout {rollout.id} was to be approved within {deadline_seconds:.0f} s; "
            "it ends as refused: promote the version again"
        )
    return now + timedelta(seconds=deadline_seconds - rested)


def _ended_since(connection: Connection, request: Request, asked_at: datetime) -> Rollout | None:
    ended = (
        _table.c.model == request.model,
        _table.c.version == request.version,
        _table.c.finished_at >= time_text(asked_at),
    )
    row = connection.execute(select(_table).where(*ended).order_by(_table.c.finished_at.desc()).limit(1))
    found = row.one_or_none()
    return None if found is None else _rollout(found)


def _open_of(model: str) -> Any:
    return select(_table).where(_table.c.open_model == model)


def _is_open(rollout_id: str) -> Any:
    return (_table.c.id == rollout_id) & _table.c.open_model.is_not(None)


def _row(connection: Connection, rollout_id: str, *, locked: bool = False) -> Row[Any]:
    query = select(_table).where(_table.c.id == rollout_id)
    row = connection.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotServed(f"there is no rollout {rollout_id}")
    return row


def _audit(
    connection: Connection,
    model: str,
    version: str,
    actor: str,
    details: Mapping[str, JsonValue],
    now: datetime,
) -> None:
    entry = AuditEntry(action="promote", actor=actor, model=model, version=version, details=details, at=now)
    audit.append(connection, entry)


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        model=row.model,
        version=row.version,
        strategy=row.strategy,
        state=State(row.state),
        phase=Phase(row.phase),
        requested_by=row.requested_by,
        reason=row.reason,
        policy=json.loads(row.policy),
        restore_point=json.loads(row.restore_point) if row.restore_point else None,
        evidence=json.loads(row.evidence) if row.evidence else None,
        created_at=read_time(row.created_at),
        updated_at=read_time(row.updated_at),
        finished_at=read_optional_time(row.finished_at),
        spec=json.loads(row.spec) if row.spec else None,
        status=json.loads(row.status) if row.status else None,
        asked=_asked(json.loads(row.command)) if row.command else None,
    )


def _asked(said: Mapping[str, Any]) -> Asked:
    return Asked(
        said["id"],
        Command(said["command"]),
        said["by"],
        read_time(said["at"]),
        said["step"],
        said.get("stage"),
        read_optional_time(said.get("until")),
    )
