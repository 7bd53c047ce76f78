"""The health serving keeps of its own models: basic (does it answer) and operational (is all well around).

A probe goes through the normal inference path every few seconds; reading health only reads what the
probes and the follower left behind.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from serving.core.clock import Clock
from serving.core.errors import SignalboxError
from serving.core.health import Level, LevelReport, Status, aged, not_measured, overall, worst
from serving.core.model import Alias, Variant
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.formats.selftest import probe_inputs
from serving.inference import Inference
from serving.ledger import Ledger
from serving.pool import LoadedVersion
from serving.routes import Route
from serving.store.levels import StoredLevel
from serving.store.workers import Proof

log = logging.getLogger(__name__)

_PROBE_DEADLINE_SECONDS = 10.0
_FLOW_INTERVAL_SECONDS = 60.0
_TOLD_FOR_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """One model's levels and what to do about them."""

    model: str
    version: str | None
    alias: str
    status: Status
    levels: Mapping[Level, LevelReport]
    recommendations: list[str]

    def as_json(self) -> dict[str, Any]:
        levels = {
            str(level): {
                "status": str(report.status),
                "message": report.message,
                "checked_at": report.checked_at.isoformat() if report.checked_at else None,
            }
            for level, report in self.levels.items()
        }
        return {
            "model": self.model,
            "version": self.version,
            "alias": self.alias,
            "status": str(self.status),
            "levels": levels,
            "recommendations": self.recommendations,
        }


class Health:
    """Probes champions and challengers, and grades what it saw of the champions.

    Confined to the event loop's thread.
    """

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        follower: Follower,
        inference: Inference,
        ledger: Ledger,
        clock: Clock,
        probe_seconds: float,
    ) -> None:
        self._models = models
        self._follower = follower
        self._inference = inference
        self._ledger = ledger
        self._clock = clock
        self._probe_seconds = probe_seconds
        self._basic: dict[str, LevelReport] = {}
        self._reported: dict[str, dict[Level, LevelReport]] = {}
        self._probing: set[tuple[str, Alias]] = set()
        self._told: dict[str, tuple[float, Status]] = {}
        self.proofs: dict[str, Proof] = {}
        self.challenger_proofs: dict[str, Proof] = {}

    async def run(self) -> None:
        """Probe every served champion and challenger, again and again, until cancelled."""
        async with asyncio.TaskGroup() as probes:
            while True:
                for model in self._models.values():
                    for alias in (Alias.CHAMPION, Alias.CHALLENGER):
                        # A version that hangs holds up no other's probe.
                        if (model.name, alias) not in self._probing:
                            self._probing.add((model.name, alias))
                            probes.create_task(self._probe_safely(model, alias))
                await asyncio.sleep(self._probe_seconds)

    async def _probe_safely(self, model: FollowedModel, alias: Alias) -> None:
        try:
            await (self.probe(model) if alias is Alias.CHAMPION else self.probe_challenger(model))
        except Exception as error:  # one probe must not end the loop
            log.exception("probe_failed model=%s alias=%s", model.name, alias)
            if alias is Alias.CHAMPION:
                self._note(model.name, Status.CRITICAL, f"probe failed: {error}")
        finally:
            self._probing.discard((model.name, alias))

    def of(self, model: FollowedModel) -> ModelHealth:
        now = self._clock.now()
        basic = self._basic.get(model.name, not_measured("not probed yet"))
        levels = {
            Level.BASIC: aged(basic, now, self._probe_seconds),
            Level.FUNCTIONAL: self._of_flows(model, Level.FUNCTIONAL, now),
            Level.OPERATIONAL: self._operational(model, now),
            Level.PREDICTIVE: self._of_flows(model, Level.PREDICTIVE, now),
        }
        champion = model.champion
        return ModelHealth(
            model=model.name,
            version=champion.ref.version if champion else None,
            alias=Alias.CHAMPION,
            status=overall(levels.values()),
            levels=levels,
            recommendations=self._recommendations(model),
        )

    def all(self, only: str | None = None) -> tuple[Status, list[ModelHealth]]:
        """Worst status and every followed model that is served or wanted."""
        reports = [
            self.of(model)
            for model in sorted(self._models.values(), key=lambda m: m.name)
            if model.name == only or (only is None and (model.served or model.refusals or model.is_wanted))
        ]
        return worst(report.status for report in reports) if reports else Status.HEALTHY, reports

    def names(self) -> list[str]:
        return sorted(self._models)

    def status_of(self, model: str) -> Status:
        """For every answer's label, so at most a moment old instead of graded for each."""
        now = self._clock.monotonic()
        at, status = self._told.get(model, (float("-inf"), Status.UNKNOWN))
        if now - at >= _TOLD_FOR_SECONDS:
            followed = self._models.get(model)
            status = self.of(followed).status if followed is not None else Status.UNKNOWN
            self._told[model] = (now, status)
        return status

    async def probe(self, model: FollowedModel) -> None:
        """Ask the champion once, on the path every request takes, and note what came of it."""
        champion = model.champion
        if champion is None:
            if model.is_wanted:
                self._note(model.name, Status.CRITICAL, "the champion is not loaded")
            else:
                self._basic.pop(model.name, None)
            return
        began_at = self._clock.now()
        try:
            seen = await self._ask(champion)
        except SignalboxError as error:
            self._note(model.name, Status.CRITICAL, f"version {champion.ref.version} did not answer: {error}")
            return
        self.proofs[model.name] = _proof(champion, began_at)
        self._note(model.name, Status.HEALTHY, seen)

    async def probe_challenger(self, model: FollowedModel) -> None:
        """Ask the challenger once. Its failure is no word on the model, whose champion stands in for it."""
        challenger = model.challenger
        if challenger is None:
            self.challenger_proofs.pop(model.name, None)
            return
        began_at = self._clock.now()
        try:
            await self._ask(challenger)
        except SignalboxError as error:
            log.warning("challenger_unproven version=%s reason=%s", challenger.ref, error)
            return
        self.challenger_proofs[model.name] = _proof(challenger, began_at)

    async def _ask(self, version: LoadedVersion) -> str:
        """What a probe on the path of every request showed. Raises what kept it from being answered."""
        if not version.is_awake:  # waking it for a probe would only send another to sleep
            return "asleep to save memory; the next request wakes it"
        probe = probe_inputs(version.model, version.artifact)
        if probe is None:
            return "loaded; no input is known to probe it with"
        started = self._clock.monotonic()
        await self._inference.infer(
            Route(version, None, Variant.PROBE, None),
            lambda _: probe.inputs,
            deadline=started + _PROBE_DEADLINE_SECONDS,
            request_id=uuid4().hex,
            finite=False,
        )
        milliseconds = (self._clock.monotonic() - started) * 1000
        return f"version {version.ref.version} answered a probe in {milliseconds:.1f} ms"

    def learn(self, stored: Iterable[StoredLevel]) -> None:
        """Take over what the flows reported; a verdict on another version says nothing of this one."""
        reported: dict[str, dict[Level, LevelReport]] = {}
        for level in stored:
            model = self._models.get(level.model)
            champion = model.champion if model is not None else None
            if champion is not None and level.version in (None, champion.ref.version):
                reported.setdefault(level.model, {})[level.level] = level.report
        self._reported = reported

    def _of_flows(self, model: FollowedModel, level: Level, now: datetime) -> LevelReport:
        report = self._reported.get(model.name, {}).get(level, not_measured("no check has reported"))
        return aged(report, now, _FLOW_INTERVAL_SECONDS)

    def _note(self, model: str, status: Status, message: str) -> None:
        self._basic[model] = LevelReport(status, message, self._clock.now())

    def _operational(self, model: FollowedModel, now: datetime) -> LevelReport:
        evidence = model.window.evidence(self._clock.monotonic())
        if evidence.is_failing:
            return LevelReport(Status.CRITICAL, str(evidence), now)
        problems = [
            problem
            for problem in (
                f"registry_stale: {self._follower.registry_problem}"
                if self._follower.registry_problem
                else None,
                f"state store: {self._ledger.problem}" if self._ledger.problem else None,
                "alias champion was deleted" if model.orphaned_since else None,
                *(f"{alias}: {refusal.reason}" for alias, refusal in model.refusals.items()),
            )
            if problem
        ]
        if problems:
            return LevelReport(Status.WARNING, "; ".join(problems), now)
        return LevelReport(
            Status.HEALTHY,
            f"{evidence.answers} answers in the last seconds, none failed"
            if not evidence.failed
            else str(evidence),
            now,
        )

    def _recommendations(self, model: FollowedModel) -> list[str]:
        advice = [
            f"alias {alias} names version {refusal.key.ref.version}, which was refused: move it to a version "
            "that loads, or register a corrected one"
            for alias, refusal in model.refusals.items()
        ]
        if model.orphaned_since is not None:
            advice.append("set alias champion again, or this model stops answering")
        if self._follower.registry_problem:
            advice.append("see to MLflow; the last good state answers meanwhile")
        return advice


def _proof(version: LoadedVersion, began_at: datetime) -> Proof:
    return Proof(version.ref.version, version.provenance.digest, began_at)
