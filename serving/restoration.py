"""Coming back after a restart: the versions of the local record, from the local cache, without MLflow."""

import logging
from collections.abc import Iterable

from serving.core.model import Alias, VersionRef
from serving.followed import FollowedModel, find_served
from serving.library import Library
from serving.overrides import Overrides
from serving.pool import LoadedVersion
from serving.store.overrides import Override
from serving.store.record import ModelRecord, ServedVersion
from serving.visibility import Visibility
from serving.watch import Watch

log = logging.getLogger(__name__)


async def restore(
    records: dict[str, ModelRecord],
    models: dict[str, FollowedModel],
    library: Library,
    overrides: Overrides,
    visibility: Visibility,
) -> None:
    """Serve what the record names. A version that cannot be restored is left to the reconcile loop."""
    for name, record in records.items():
        model = models.setdefault(name, FollowedModel(name))
        model.champions = list(record.champions)
        model.orphaned_since, model.split = record.orphaned_since, record.split
        known = [*record.champions, *record.aliases.values()]
        for alias, served in record.aliases.items():
            override = overrides.laid_for(name, alias)
            version = served.version if override is None else override.answer_with
            if (loaded := await _reload(name, version, known, library)) is not None:
                model.served[alias] = loaded
        for served in record.by_hand:
            if (loaded := await _reload(name, served.version, [served], library)) is not None:
                model.by_hand[served.version] = loaded
        _forget_failed(model, record, overrides.laid_for(name, Alias.CHAMPION))
        if model.previous_record is not None:
            model.previous = await _reload(name, model.previous_record.version, known, library)
        _resume_watch(model, record)
        visibility.show(model)


def _forget_failed(model: FollowedModel, record: ModelRecord, override: Override | None) -> None:
    """A crash between an override and its swap leaves the failed version in the record's place of honour."""
    recorded = record.aliases.get(Alias.CHAMPION)
    if recorded is None or override is None or override.answer_with == recorded.version:
        return
    model.dethrone(VersionRef(model.name, recorded.version))
    answering = find_served(override.answer_with or "", [*record.champions, *record.aliases.values()])
    if answering is not None:
        model.crown(answering)


def _resume_watch(model: FollowedModel, record: ModelRecord) -> None:
    watch, champion = record.watch, model.champion
    if watch is not None and champion is not None and champion.ref.version == watch.version:
        model.watch = Watch(watch.version, watch.previous, watch.by_hand, watch.until)


async def _reload(
    model: str, version: str | None, known: Iterable[ServedVersion], library: Library
) -> LoadedVersion | None:
    served = find_served(version, known) if version is not None else None
    if served is None:
        return None
    try:
        return await library.reload(model, served)
    except Exception as error:  # whatever one version raises must not keep the others from answering
        log.warning("not_restored model=%s version=%s reason=%r", model, version, error)
        return None
