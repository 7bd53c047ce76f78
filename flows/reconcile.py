"""Flow `reconcile`: starts missed challengers, takes up abandoned rollouts, repeats what failed.

Called by `tend` every minute and on demand. Compares the registry with the store and acts on the
difference; finding nothing to do is its normal outcome, and it says so.
"""

import getpass
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed

from flows.restorability import points_checked
from flows.rollout.attention import Action, attention
from flows.rollout.descent import stage_seconds
from flows.rollout.promotion import Asked, owns, record, tidy
from flows.shares import shares_corrected
from flows.wiring import Wiring, wired
from serving.core.errors import ChangeRefused, RegistryUnavailable, SignalboxError
from serving.core.model import Alias, Tag
from serving.store import changes, overrides, rollbacks, rollouts, sightings, workers
from serving.store.follow_up import follow_up
from serving.store.guard import Wish
from serving.store.registry import RegisteredModel
from serving.store.rollouts import Entry, Rollout

DEPLOYMENT = "promote-model/promote-model"
ROLLBACK_DEPLOYMENT = "roll-back-model/roll-back-model"
_RESTART_SECONDS = 120
# Serving writes its own rollbacks to the registry; this is for one that died before it could.
_OVERRIDE_PATIENCE = timedelta(seconds=30)
# Longer than a replica may take to follow.
_ROLLBACK_PATIENCE = timedelta(seconds=75)


@flow(name="reconcile")
def reconcile() -> State[Any]:
    """Bring what was left undone to its end."""
    log = get_run_logger()
    with wired() as wiring:
        try:
            done = reconciled(wiring)
        except SignalboxError as error:
            return Failed(name="Unavailable", message=str(error))
    for sentence in done:
        log.info("%s", sentence)
    return Completed(message="; ".join(done) or "nothing was left undone")


def reconciled(wiring: Wiring) -> list[str]:
    """What was done, one sentence each. Raises `RegistryUnavailable` and `StoreUnavailable`."""
    models = wiring.registry.registered_models()
    open_by_model = {rollout.model: rollout for rollout in rollouts.open_rollouts(wiring.engine)}
    done = [*_overrides(wiring, models)]
    for name in sorted(models.keys() | open_by_model.keys()):
        try:
            done += _tended(wiring, name, models.get(name), open_by_model.get(name))
            if name in models:
                done += _previous(wiring, models[name])
                if name not in open_by_model:
                    done += shares_corrected(wiring, models[name])
        except (RegistryUnavailable, ChangeRefused) as error:
            done.append(f"{name}: {error}")
    return [*done, *_rollbacks(wiring), *points_checked(wiring)]


def _rollbacks(wiring: Wiring) -> Iterator[str]:
    """Have a worker carry on what nobody has worked on for a while."""
    now = wiring.clock.now()
    for way_back in rollbacks.under_way(wiring.engine):
        # A stage notes nothing while it lasts.
        patience = _ROLLBACK_PATIENCE + timedelta(seconds=stage_seconds(way_back))
        if now - way_back.updated_at >= patience:
            period = int(now.timestamp()) // _RESTART_SECONDS
            run_deployment(
                ROLLBACK_DEPLOYMENT,
                parameters={"rollback_id": way_back.id},
                timeout=0,
                as_subflow=False,
                idempotency_key=f"{way_back.id}:{period}",
            )
            yield f"{way_back.model}: rollback {way_back.id} was left at {way_back.step}; started again"


def _tended(
    wiring: Wiring, name: str, model: RegisteredModel | None, open_rollout: Rollout | None
) -> Iterator[str]:
    now = wiring.clock.now()
    named = model.aliases.get(Alias.CHALLENGER) if model is not None else None
    sightings.see(wiring.engine, name, Alias.CHALLENGER, named, now)
    challenger = sightings.current(wiring.engine, name, Alias.CHALLENGER)
    ended = (r for r in rollouts.recent(wiring.engine, name) if r.version == named and r.state.is_terminal)
    needed = attention(challenger, open_rollout, next(ended, None), now)
    if needed.action is Action.TIDY and needed.rollout is not None:
        with wiring.guard.holding(name, f"tend:{needed.rollout.id}") as lease:
            warnings = tidy(needed.rollout, wiring.registry, wiring.guard, lambda: lease)
        yield f"{name}: {needed.reason}; {'; '.join(warnings) or 'taken away'}"
    elif (late := _left_tag(wiring, model, open_rollout)) is not None:
        with wiring.guard.holding(name, f"tend:{late.id}") as lease:
            warnings = tidy(late, wiring.registry, wiring.guard, lambda: lease)
        yield f"{name}: the traffic tag outlived rollout {late.id}; {'; '.join(warnings) or 'taken away'}"
    elif needed.action is Action.TAKE_UP and needed.rollout is not None:
        start_promotion(needed.rollout, wiring)
        yield f"{name}: {needed.reason}; started again"
    elif needed.action is Action.START and challenger is not None:
        if _is_ejected(wiring, name, challenger.version):
            return  # serving had it answer and sent it away; its alias goes next
        by = f"tend (alias challenger, unverified:{getpass.getuser()})"
        asked = Asked(
            model=name,
            version=challenger.version,
            asked_at=challenger.seen_at,
            by=by,
            strategy=wiring.settings.strategy,
            usual=wiring.settings.usual_plan,
        )
        entry = record(wiring.engine, wiring.registry, asked, wiring.clock)
        if isinstance(entry, Entry) and not entry.rollout.state.is_terminal:
            start_promotion(entry.rollout, wiring)
            yield f"{name}: {needed.reason}; started"
        else:
            reason = entry.reason if not isinstance(entry, Entry) else "it has just ended"
            yield f"{name}: {needed.reason}; not started: {reason}"


def _left_tag(wiring: Wiring, model: RegisteredModel | None, open_rollout: Rollout | None) -> Rollout | None:
    """The ended rollout whose traffic tag is still there."""
    tag = model.tags.get(Tag.TRAFFIC) if model is not None else None
    if model is None or tag is None or open_rollout is not None:
        return None
    return next((each for each in rollouts.recent(wiring.engine, model.name) if owns(each, tag)), None)


def _is_ejected(wiring: Wiring, model: str, version: str) -> bool:
    key = (model, Alias.CHALLENGER, version)
    return any((o.model, o.role, o.not_version) == key for o in overrides.active(wiring.engine))


def start_promotion(rollout: Rollout, wiring: Wiring) -> None:
    """Have a worker carry an open rollout on. Asking again within two minutes starts no second run."""
    period = int(wiring.clock.now().timestamp()) // _RESTART_SECONDS
    run_deployment(
        DEPLOYMENT,
        parameters={
            "model": rollout.model,
            "version": rollout.version,
            "strategy": rollout.strategy,
            "requested_by": rollout.requested_by,
            "asked_at": rollout.created_at.isoformat(),
        },
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{rollout.id}:{period}",
    )


def _previous(wiring: Wiring, model: RegisteredModel) -> Iterator[str]:
    """Write `previous` after a move by hand for a server that died before it could; a living one does it."""
    latest = changes.latest(wiring.engine, model.name, Alias.CHAMPION)
    if latest is None or not latest.out_of_band or None in (latest.from_version, latest.to_version):
        return
    laid = overrides.last_laid(wiring.engine, model.name, Alias.CHAMPION)
    is_failed = laid is not None and laid.not_version == latest.from_version
    is_settled = model.aliases.get(Alias.CHAMPION) == latest.to_version
    named = model.aliases.get(Alias.PREVIOUS)
    if is_failed or not is_settled or named == latest.from_version:
        return
    if workers.live(wiring.engine, wiring.clock.now()):
        return
    wish = Wish(
        model=model.name,
        alias=Alias.PREVIOUS,
        to_version=latest.from_version,
        actor=f"unverified:{getpass.getuser()}",
        reason=f"champion was moved by hand to {latest.to_version}",
        only_from=frozenset({named}),
    )
    with wiring.guard.holding(model.name, f"tend:previous:{latest.id}") as lease:
        move = wiring.guard.move(wish, lease)
    yield f"{model.name}: previous after a move by hand set to {latest.from_version}: {move.verdict}"


def _overrides(wiring: Wiring, models: dict[str, RegisteredModel]) -> Iterator[str]:
    """Tell the registry of rollbacks and ejections whose server died before it could."""
    for override in overrides.active(wiring.engine):
        model = models.get(override.model)
        is_due = wiring.clock.now() - override.laid_at >= _OVERRIDE_PATIENCE
        wishes = follow_up(override, model) if model is not None and is_due else []
        if not wishes:
            continue
        what = f"rollback to {override.answer_with}" if override.answer_with else f"{override.role} ejected"
        with (
            suppress(ChangeRefused),
            wiring.guard.holding(override.model, f"tend:{override.id}", preempt=True) as lease,
        ):
            for wish in wishes:
                move = wiring.guard.move(wish, lease)
                yield f"{override.model}: {what}: registry write {move.verdict}"
                if not move.is_settled:
                    break
