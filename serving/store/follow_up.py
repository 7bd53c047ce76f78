"""What the registry must still be told of an override: by serving, which laid it, or by `tend` later.

Only while the registry names the version that the override was laid against; else a hand has chosen.
"""

from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag
from serving.store.guard import TrafficWish, Wish
from serving.store.overrides import Override
from serving.store.registry import RegisteredModel


def follow_up(override: Override, model: RegisteredModel) -> list[Wish | TrafficWish]:
    """The writes to make, in this order; none where the override is over.

    An ejection takes the traffic tag first: once the alias is gone the override is over, and nobody would
    see to the tag.
    """
    if model.aliases.get(override.role) != override.not_version:
        return []
    alias = Wish(
        model=override.model,
        alias=override.role,
        to_version=override.answer_with,
        actor=override.actor,
        reason=override.reason,
        only_from=frozenset({override.not_version}),
    )
    text = model.tags.get(Tag.TRAFFIC)
    split = read_tag(text)
    is_its_split = isinstance(split, Split) and split.challenger == override.not_version
    if override.role != Alias.CHALLENGER or not is_its_split:
        return [alias]
    tag = TrafficWish(override.model, None, override.actor, override.reason, frozenset({text}))
    return [tag, alias]
