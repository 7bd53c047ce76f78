"""Which versions claim to be the same network as a candidate: those with the same value of one tag.

`signalbox.sibling` is any name that a person or a side file gives; versions of one model or of several
may share it. Called by `flows.catalog.validate`.
"""

from serving.core.model import Tag
from serving.store.registry import ModelVersion, Registry

_MAX_SIBLINGS = 4


def siblings(registry: Registry, candidate: ModelVersion) -> list[ModelVersion]:
    """The newest of each model and format, newest first. Raises `RegistryUnavailable`."""
    name = candidate.tags.get(Tag.SIBLING)
    if not name:
        return []
    alike = [one for one in registry.versions_tagged(Tag.SIBLING, name) if one.ref != candidate.ref]
    newest = {(one.ref.model, one.tags.get(Tag.FORMAT) or one.ref.version): one for one in alike}
    return sorted(newest.values(), key=lambda one: one.created_ms, reverse=True)[:_MAX_SIBLINGS]
