"""Which loaded version answers a request: one immutable table per model, replaced whole.

A request picks its version once, from the table of that moment; publishing a new table is the swap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.core.errors import NotServed
from serving.core.model import Alias, Variant
from serving.pool import LoadedVersion


@dataclass(frozen=True, slots=True)
class Route:
    """The version chosen for one request, and who stands in when it fails."""

    version: LoadedVersion
    fallback: LoadedVersion | None
    variant: Variant
    alias: str | None


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """What one model answers with now.

    `previous` is the fallback on serving's own record, `by_hand` what an admin loaded by number.
    """

    by_alias: Mapping[str, LoadedVersion] = field(default_factory=dict)
    previous: LoadedVersion | None = None
    by_hand: Mapping[str, LoadedVersion] = field(default_factory=dict)

    @property
    def champion(self) -> LoadedVersion | None:
        return self.by_alias.get(Alias.CHAMPION)

    def by_version(self, version: str) -> LoadedVersion | None:
        named = next((v for v in self.by_alias.values() if v.ref.version == version), None)
        return named if named is not None else self.by_hand.get(version)

    def all(self) -> list[LoadedVersion]:
        """The versions that may be addressed, ascending."""
        versions = dict(self.by_hand) | {v.ref.version: v for v in self.by_alias.values()}
        return [versions[number] for number in sorted(versions, key=int)]

    def versions(self) -> list[str]:
        """Their numbers."""
        return [version.ref.version for version in self.all()]

    def addresses(self) -> list[str]:
        """Everything that may stand in a request's place for the version."""
        return [*sorted(self.by_alias), *self.versions()]


class Routes:
    """The tables of all models. Written by the follower, read by every request, on one thread."""

    def __init__(self) -> None:
        self._models: dict[str, ModelRoutes] = {}

    def publish(self, model: str, routes: ModelRoutes) -> None:
        if routes.by_alias or routes.by_hand:
            self._models[model] = routes
        else:
            self._models.pop(model, None)

    def names(self) -> list[str]:
        return sorted(self._models)

    def of(self, model: str) -> ModelRoutes:
        """Raises `NotServed` naming the models there are."""
        routes = self._models.get(model)
        if routes is None:
            raise NotServed(f"model '{model}' is not served", exists=self.names())
        return routes

    def find(self, model: str, address: str | None) -> Route:
        """The route of a request for `model`, where `address` is a version number, an alias or nothing.

        Only the champion has a stand-in: whoever names another version wants that version's own answer.
        """
        routes = self.of(model)
        alias = Alias.CHAMPION if address is None else address
        version = routes.by_alias.get(alias)
        if version is not None and alias == Alias.CHAMPION:
            return Route(version, routes.previous, Variant.CHAMPION, alias)
        if version is not None:
            variant = Variant.CHALLENGER if alias == Alias.CHALLENGER else Variant.DIRECT
            return Route(version, None, variant, alias)
        if address is not None and (version := routes.by_version(address)) is not None:
            return Route(version, None, Variant.DIRECT, None)
        wanted = "has no champion" if address is None else f"does not serve version or alias '{address}'"
        raise NotServed(f"model '{model}' {wanted}", exists=routes.addresses())
