"""Whether a change has reached every serving worker: pure, over their heartbeats.

Source of the rule: a change is applied once every live worker reports a probe of the wanted version
that began after the write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from serving.core.traffic import Split
from serving.store.workers import Beat


class Verdict(StrEnum):
    APPLIED = "applied"
    WAITING = "waiting"
    REFUSED = "refused"
    NO_WORKERS = "no_workers"


@dataclass(frozen=True, slots=True)
class Applied:
    """The verdict, and one sentence per worker that explains it."""

    verdict: Verdict
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.evidence) or "no serving worker is alive"


def applied(beats: Sequence[Beat], model: str, version: str, written_at: datetime) -> Applied:
    """Whether every live worker answers with `version` since `written_at`."""
    if not beats:
        return Applied(Verdict.NO_WORKERS, ())
    states = [_state(beat, model, version, written_at) for beat in beats]
    return _worst(beats, states)


def split_applied(beats: Sequence[Beat], model: str, wanted: Split, written_at: datetime) -> Applied:
    """Whether every live worker splits as `wanted` since `written_at`, its challenger probed after that."""
    if not beats:
        return Applied(Verdict.NO_WORKERS, ())
    states = [_split_state(beat, model, wanted, written_at) for beat in beats]
    return _worst(beats, states)


def _worst(beats: Sequence[Beat], states: Sequence[tuple[Verdict, str]]) -> Applied:
    evidence = tuple(f"{beat.worker}: {sentence}" for beat, (_, sentence) in zip(beats, states, strict=True))
    verdicts = {verdict for verdict, _ in states}
    for worst in (Verdict.REFUSED, Verdict.WAITING):
        if worst in verdicts:
            return Applied(worst, evidence)
    return Applied(Verdict.APPLIED, evidence)


def _split_state(beat: Beat, name: str, wanted: Split, written_at: datetime) -> tuple[Verdict, str]:
    model = beat.models.get(name)
    if model is None:
        return Verdict.WAITING, "does not know the model yet"
    version = wanted.challenger
    if version in model.challenger_refused and beat.beat_at >= written_at:
        return Verdict.REFUSED, f"refused version {version}: {model.challenger_refused[version]}"
    if (model.challenger, model.percent, model.rollout) != (version, wanted.percent, wanted.rollout):
        return Verdict.WAITING, f"sends {model.percent} % to challenger {model.challenger or 'none'}"
    if model.challenger_proof is None or model.challenger_proof.started_at < written_at:
        return Verdict.WAITING, f"has not probed challenger {version} since the change"
    return Verdict.APPLIED, f"sends {wanted.percent} % to challenger {version}, which answered a probe"


def _state(beat: Beat, name: str, version: str, written_at: datetime) -> tuple[Verdict, str]:
    model = beat.models.get(name)
    if model is None:
        return Verdict.WAITING, "does not know the model yet"
    if version in model.refused and beat.beat_at >= written_at:
        return Verdict.REFUSED, f"refused version {version}: {model.refused[version]}"
    if model.champion != version or model.proof is None:
        return Verdict.WAITING, f"answers with version {model.champion or 'none'}"
    if model.proof.started_at < written_at:
        return Verdict.WAITING, "was probed last before the change"
    return Verdict.APPLIED, f"answered a probe with version {version} ({model.proof.digest[:12]})"


def withdrawn(beats: Sequence[Beat], model: str, rollout: str) -> bool:
    """Whether no live worker splits or copies for the rollout any more."""
    served = (beat.models.get(model) for beat in beats)
    return not any(seen is not None and seen.rollout == rollout for seen in served)
