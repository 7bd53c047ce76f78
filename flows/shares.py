"""The share of the traffic that MLflow's pages show on a version, kept true when it changes outside a
rollout: by a rollback, an alias moved by hand, a split that somebody set. Called by `reconcile`.
"""

from collections.abc import Iterator

from flows.wiring import Wiring
from serving.core.model import Alias, Tag
from serving.core.traffic import ALL_PERCENT, Split, read_tag, wanted_split
from serving.store.registry import RegisteredModel


def shares(model: RegisteredModel) -> dict[str, int]:
    """Percent of the requests that name no version and no alias, by version; none for one left out."""
    champion = model.aliases.get(Alias.CHAMPION)
    if champion is None:
        return {}
    split = wanted_split(read_tag(model.tags.get(Tag.TRAFFIC)), model.aliases)
    if not isinstance(split, Split):
        return {champion: ALL_PERCENT}
    return {champion: ALL_PERCENT - split.percent, split.challenger: split.percent}


def shares_corrected(wiring: Wiring, model: RegisteredModel) -> Iterator[str]:
    """Of the versions that show a share at all, which a rollout gave them. Raises `RegistryUnavailable`."""
    true = shares(model)
    for version in wiring.registry.versions(model.name):
        shown, percent = version.tags.get(Tag.TRAFFIC_PERCENT), true.get(version.ref.version, 0)
        if shown is not None and shown != str(percent):
            wiring.registry.set_version_tag(version.ref, Tag.TRAFFIC_PERCENT, str(percent))
            ref = f"{model.name}: version {version.ref.version}"
            yield f"{ref} shows {percent} % of the traffic for {shown} %"
