"""A promotion as the API takes it: on record first, then ordered from Prefect, and how far it is.

Also the commands that people give to a rollout under way. What a model file became is looked up, and waited
for where nobody has registered it yet; it is never loaded here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import (
    ArtifactRefused,
    ChangeRefused,
    FlowsUnavailable,
    InvalidRequest,
    NotServed,
)
from serving.core.model import VersionRef
from serving.ledger import Ledger
from serving.orders import Orders
from serving.store import model_files, policies, rollouts
from serving.store.model_files import ModelFile
from serving.store.model_files import State as FileState
from serving.store.registry import Registry
from serving.store.rollouts import Command, Entry, Request, Rollout
from serving.store.text import JsonValue

DEPLOYMENT = "promote-model/promote-model"
REGISTER_DEPLOYMENT = "register-models/register-models"
# How long a request waits for its model file to become a version, and in how many orders for that.
_REGISTERED_WITHIN_SECONDS, _ORDERS = 60.0, 3
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A promotion as it was asked for: a version's number, or the path of a model file that became one."""

    model: str
    version: str | None
    model_path: str | None
    strategy: str
    actor: str
    policy: Mapping[str, JsonValue] = field(default_factory=dict)


class Promotions:
    """Confined to the event loop's thread; registry and store are asked on others."""

    def __init__(
        self,
        registry: Registry,
        ledger: Ledger,
        orders: Orders,
        clock: Clock,
        folders: Sequence[Path],
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._orders = orders
        self._clock = clock
        self._folders = folders
        self._pause = pause

    async def begin(self, asked: Asked) -> Rollout:
        """Open a rollout, or join the one of the same version, and have a worker begin.

        Raises:
            InvalidRequest: the path leads out of the model folders, or the stages could never be planned.
            NotServed: the registry has no such model or version.
            ArtifactRefused: the model file was refused at registration.
            ChangeRefused: another version is being promoted, the model is frozen or on its way back, or the
                file is not registered yet, and was not while this waited for it.
            FlowsUnavailable: it is on record and waits for Prefect.
            RegistryUnavailable, StoreUnavailable: nothing was begun.
        """
        version = asked.version or await self._version_of(asked)
        ref = VersionRef(asked.model, version)
        await asyncio.to_thread(self._registry.version, ref)
        now = self._clock.now()
        request = Request(
            model=asked.model,
            version=version,
            strategy=asked.strategy,
            requested_by=asked.actor,
            policy=asked.policy,
        )
        entry: Entry = await self._ledger.call(lambda engine: _entered(engine, request, now))
        rollout = entry.rollout
        if rollout.version != version:
            raise ChangeRefused(
                f"version {rollout.version} of '{rollout.model}' is being promoted by "
                f"{rollout.requested_by} (rollout {rollout.id}); ask again when it has ended",
                holder=rollout.id,
            )
        try:
            await self._order(rollout, now)
        except FlowsUnavailable as error:
            raise FlowsUnavailable(error.problem, recorded=f"rollout {rollout.id}") from None
        return rollout

    async def find(self, rollout_id: str) -> Rollout:
        return await self._ledger.look(lambda engine: rollouts.get(engine, rollout_id))

    async def recent(self, model: str | None, limit: int) -> list[Rollout]:
        return await self._ledger.look(lambda engine: rollouts.recent(engine, model, limit))

    async def command(self, rollout_id: str, command: Command, actor: str) -> Rollout:
        """Leave a command for whoever works on a rollout, and a worker for one that rests.

        One that nobody has begun is ended by `abort` at once. Raises `NotServed`, or `ChangeRefused` for a
        rollout that is over or has nothing to command.
        """
        now = self._clock.now()
        rollout: Rollout = await self._ledger.call(
            lambda engine: rollouts.ask(engine, rollout_id, command, actor, now)
        )
        if rollout.state.is_terminal:
            return rollout
        try:
            await self._order(rollout, rollout.created_at)
        except FlowsUnavailable as error:
            raise FlowsUnavailable(error.problem, recorded=f"'{command}' for rollout {rollout.id}") from None
        return rollout

    async def _order(self, rollout: Rollout, asked_at: datetime) -> None:
        """A run that finds another at work ends at once, so one order too many does no harm."""
        parameters = {
            "model": rollout.model,
            "version": rollout.version,
            "strategy": rollout.strategy,
            "asked_at": asked_at.isoformat(),
            "requested_by": rollout.requested_by,
            **rollout.policy,
        }
        await self._orders.start(DEPLOYMENT, parameters)

    async def _version_of(self, asked: Asked) -> str:
        path = await asyncio.to_thread(_inside, str(asked.model_path), self._folders)

        file = await self._file(path)
        if not _is_settled(file):
            file = await self._registered(path)
        if file.state is FileState.REFUSED:
            raise ArtifactRefused(
                f"{path.name} was refused at registration: {file.reason}",
                next_step="put a corrected file in its place",
            )
        if file.model != asked.model:
            raise ChangeRefused(
                f"{path.name} is version {file.version} of '{file.model}', not of '{asked.model}'"
            )
        assert file.version is not None
        return file.version

    async def _file(self, path: Path) -> ModelFile | None:
        return await self._ledger.look(lambda engine: model_files.get(engine, str(path)))

    async def _registered(self, path: Path) -> ModelFile:
        """What a file became, once a pass over the folders that was begun for it has seen it.

        Asked for more than once: an order is dropped while another pass runs, which may be past the file.
        Raises `ChangeRefused` when nobody can register it, or has not in time.
        """
        for _ in range(_ORDERS):
            try:
                await self._orders.start(REGISTER_DEPLOYMENT, {})
            except FlowsUnavailable as error:
                problem = f"{path.name} is not registered yet, and nobody can do that now: {error.problem}"
                raise ChangeRefused(problem) from None
            until = self._clock.monotonic() + _REGISTERED_WITHIN_SECONDS / _ORDERS
            while self._clock.monotonic() < until:
                await self._pause(_LOOK_SECONDS)
                file = await self._file(path)
                if file is not None and _is_settled(file):
                    return file
        raise ChangeRefused(f"{path.name} is not registered yet: that was begun now; ask again in a minute")


def _entered(engine: Engine, request: Request, now: datetime) -> Entry:
    """Refuse stages that nobody could plan before they are on record: a rollout that cannot begin is in the
    way of every other. What is kept for the model counts; the flow's own settings are not known here.
    """
    if request.strategy == rollouts.STAGED:
        plan = {**policies.of_model(engine, request.model).get(policies.PROMOTION, {}), **request.policy}
        seconds, deadline = plan.get("stage_seconds"), plan.get("stage_deadline_seconds")
        if seconds is not None and deadline is not None and float(deadline) < float(seconds):
            raise InvalidRequest(
                f"'stage_deadline_seconds' {float(deadline):g} is shorter than "
                f"'stage_seconds' {float(seconds):g}"
            )
    return rollouts.enter(engine, request, now, now)


def _is_settled(file: ModelFile | None) -> TypeGuard[ModelFile]:
    """Whether registering has come to an end with the file as it is."""
    if file is None:
        return False
    is_version = file.state is FileState.REGISTERED and file.version is not None
    return is_version or file.state is FileState.REFUSED


def progress(rollout: Rollout, served: Mapping[str, Any] | None) -> dict[str, Any]:
    """How far a rollout is, as `GET update-models/{swap_id}` tells it. `served` is by alias."""
    point, evidence = rollout.restore_point or {}, rollout.evidence or {}
    is_promoted = rollout.state is rollouts.State.PROMOTED
    is_over = rollout.state.is_terminal
    return {
        "swap_id": rollout.id,
        "model": rollout.model,
        "state": str(rollout.state),
        "step": str(rollout.phase),
        "success": is_promoted if is_over else None,
        "message": rollout.reason or f"at step {rollout.phase.replace('_', ' ')}",
        "strategy": rollout.strategy,
        "requested_by": rollout.requested_by,
        "old_version": point.get("champion"),
        "new_version": rollout.version,
        "restore_point": point.get("id"),
        "errors": [rollout.reason] if is_over and not is_promoted else [],
        "warnings": _open_points(evidence),
        "stages": dict(rollout.status) if rollout.status is not None else None,
        "spec": dict(rollout.spec) if rollout.spec is not None else None,
        "verification": {"applied": evidence.get("applied"), "served": served},
        "evidence": evidence,
        "created_at": rollout.created_at.isoformat(),
        "updated_at": rollout.updated_at.isoformat(),
        "completed_at": rollout.finished_at.isoformat() if rollout.finished_at else None,
    }


def _open_points(evidence: Mapping[str, Any]) -> list[str]:
    """Checks that speak neither for nor against the version."""
    judged = (evidence, evidence.get("benchmark") or {})
    checks = [check for each in judged for check in each.get("checks", [])]
    unsure = {"warning", "inconclusive", "not_measured"}
    return [
        f"{check.get('name')}: {check.get('message')}" for check in checks if check.get("verdict") in unsure
    ]


def _inside(given: str, folders: Sequence[Path]) -> Path:
    """The file itself, links followed; only inside of a configured model folder."""
    try:
        path = Path(given).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise NotServed(f"there is no model file at {given}") from None
    for folder in folders:
        root = folder.resolve()
        if path.is_relative_to(root):
            return folder / path.relative_to(root)
    known = ", ".join(map(str, folders))
    raise InvalidRequest(f"'model_path' must lead into a model folder ({known}), links followed")
