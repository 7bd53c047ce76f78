"""The health serving keeps of its own models: basic (does it answer) and operational (is all well around).

A probe goes through the normal inference path every few seconds; reading health only reads what the
probes and the follower left behind.
"""

import asyncio
import logging
from collections.abc import Mapping
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
from serving.routes import Route

log = logging.getLogger(__name__)

_PROBE_DEADLINE_SECONDS = 10.0


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
    """Probes the champions and grades what it saw. Confined to the event loop's thread."""

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

    async def run(self) -> None:
        """Probe every served champion, again and again, until cancelled."""
        while True:
            for model in list(self._models.values()):
                try:
                    await self._probe(model)
                except Exception as error:  # one probe must not end the loop
                    log.exception("probe_failed model=%s", model.name)
                    self._note(model.name, Status.CRITICAL, f"probe failed: {error}")
            await asyncio.sleep(self._probe_seconds)

    def of(self, model: FollowedModel) -> ModelHealth:
        now = self._clock.now()
        basic = self._basic.get(model.name, not_measured("not probed yet"))
        levels = {
            Level.BASIC: aged(basic, now, self._probe_seconds),
            Level.FUNCTIONAL: not_measured("no check has reported"),
            Level.OPERATIONAL: self._operational(model, now),
            Level.PREDICTIVE: not_measured("no check has reported"),
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
            if (model.served or model.refusals) and only in (None, model.name)
        ]
        return worst(report.status for report in reports) if reports else Status.HEALTHY, reports

    def names(self) -> list[str]:
        return sorted(self._models)

    def status_of(self, model: str) -> Status:
        followed = self._models.get(model)
        return self.of(followed).status if followed is not None else Status.UNKNOWN

    async def _probe(self, model: FollowedModel) -> None:
        champion = model.champion
        if champion is None:
            wanted = model.registered is not None and Alias.CHAMPION in model.registered.aliases
            if wanted:
                self._note(model.name, Status.CRITICAL, "the champion is not loaded")
            else:
                self._basic.pop(model.name, None)
            return
        probe = probe_inputs(champion.model, champion.artifact)
        if probe is None:
            self._note(model.name, Status.HEALTHY, "loaded; no input is known to probe it with")
            return
        route = Route(champion, None, Variant.PROBE, None)
        started = self._clock.monotonic()
        try:
            await self._inference.infer(
                route,
                lambda _: probe.inputs,
                deadline=started + _PROBE_DEADLINE_SECONDS,
                request_id=uuid4().hex,
                finite=False,
            )
        except SignalboxError as error:
            self._note(model.name, Status.CRITICAL, f"version {champion.ref.version} did not answer: {error}")
            return
        milliseconds = (self._clock.monotonic() - started) * 1000
        self._note(
            model.name,
            Status.HEALTHY,
            f"version {champion.ref.version} answered a probe in {milliseconds:.1f} ms",
        )

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
