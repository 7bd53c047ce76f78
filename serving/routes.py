"""Which loaded version answers a request: one immutable table per model, replaced whole.

A request picks its version once, from the table of that moment; publishing a new table is the swap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from serving.core.comparison import Role
from serving.core.errors import InvalidRequest, NotServed
from serving.core.model import Alias, Variant
from serving.core.traffic import Split, goes_to_challenger
from serving.formats.loader import LoadedModel
from serving.pool import LoadedVersion

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """Who may get a copy of a request once it is answered, and as what.

    The answer and the copy are one champion's and one other version's; `is_control` where the other one
    answered and the champion gets the copy. `percent` is the share to be copied, None for the server's own.
    `by_share` counts of an answer that was computed in one batch with others only its share of the time.
    """

    version: LoadedVersion
    role: Role
    is_control: bool = False
    percent: int | None = None
    by_share: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """The version chosen for one request, who stands in when it fails, and who may get a copy of it."""

    version: LoadedVersion
    fallback: LoadedVersion | None
    variant: Variant
    alias: str | None
    copies: tuple[CopyTarget, ...] = ()

    @property
    def is_divided(self) -> bool:
        """Whether the request named nothing and is the challenger's by the split."""
        return self.variant is Variant.CHALLENGER and self.fallback is not None

    def taken(self, read: Callable[[LoadedModel], Inputs]) -> "tuple[Route, Inputs]":
        """A request as a version takes it, and its route: what a challenger alone refuses is the champion's.

        Raises `InvalidRequest`.
        """
        try:
            return self, read(self.version.model)
        except InvalidRequest:
            if not self.is_divided or self.fallback is None:
                raise
            inputs = read(self.fallback.model)
            return Route(self.fallback, None, Variant.FALLBACK, self.alias), inputs


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """What one model answers with now.

    `previous` is the fallback on serving's own record, `by_hand` what an admin loaded by number, `split`
    the one in effect: both its versions are among the aliases then. `control` is the version before,
    while the champion's times must be compared with its own.
    """

    by_alias: Mapping[str, LoadedVersion] = field(default_factory=dict)
    previous: LoadedVersion | None = None
    by_hand: Mapping[str, LoadedVersion] = field(default_factory=dict)
    split: Split | None = None
    control: LoadedVersion | None = None

    @property
    def champion(self) -> LoadedVersion | None:
        return self.by_alias.get(Alias.CHAMPION)

    def division(self) -> "Division | None":
        """The challenger's part of the split: the champion stands in, and is the control."""
        split = self.split
        if split is None:
            return None
        champion, challenger = self.by_alias[Alias.CHAMPION], self.by_alias[Alias.CHALLENGER]
        control = CopyTarget(champion, Role.CHALLENGER, is_control=True, percent=split.compare_percent)
        route = Route(challenger, champion, Variant.CHALLENGER, Alias.CHALLENGER, (control,))
        return Division(split.percent, route)

    def main(self) -> Route | None:
        """The champion's route: `previous` stands in; challenger and shadow may get a copy."""
        champion = self.champion
        if champion is None:
            return None
        compared: dict[LoadedVersion, CopyTarget] = {}
        if (shadow := self.by_alias.get(Alias.SHADOW)) is not None and shadow is not champion:
            compared[shadow] = CopyTarget(shadow, Role.SHADOW)
        if self.split is not None:  # of a version that is both, the challenger counts
            challenger = self.by_alias[Alias.CHALLENGER]
            percent = self.split.compare_percent
            compared[challenger] = CopyTarget(challenger, Role.CHALLENGER, percent=percent)
        if self.control is not None and self.control is not champion:
            compared[self.control] = CopyTarget(
                self.control, Role.CHALLENGER, is_control=True, percent=100, by_share=True
            )
        copies = tuple(compared.values())
        return Route(champion, self.previous, Variant.CHAMPION, Alias.CHAMPION, copies)

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


@dataclass(frozen=True, slots=True)
class Division:
    """The part of the requests that is the challenger's."""

    percent: int
    route: Route


class Routes:
    """The tables of all models. Written by the follower, read by every request, on one thread.

    The routes that most requests take are made when a table is published, not for each request.
    """

    def __init__(self) -> None:
        self._models: dict[str, ModelRoutes] = {}
        self._main: dict[str, Route] = {}
        self._divisions: dict[str, Division] = {}

    def publish(self, model: str, routes: ModelRoutes) -> None:
        for made in (self._models, self._main, self._divisions):
            made.pop(model, None)
        if routes.by_alias or routes.by_hand:
            self._models[model] = routes
        if (main := routes.main()) is not None:
            self._main[model] = main
        if (division := routes.division()) is not None:
            self._divisions[model] = division

    def names(self) -> list[str]:
        return sorted(self._models)

    def of(self, model: str) -> ModelRoutes:
        """Raises `NotServed` naming the models there are."""
        routes = self._models.get(model)
        if routes is None:
            raise NotServed(f"model '{model}' is not served", exists=self.names())
        return routes

    def find(self, model: str, address: str | None, key: str | None = None) -> Route:
        """The route of a request for `model`, where `address` is a version number, an alias or nothing.

        A request that names nothing is part of the split, by its route key. Whoever names a version gets
        that one and, but for the champion, that one's own answer.
        """
        divided = self._divisions.get(model) if address is None else None
        if divided is not None and key is not None and goes_to_challenger(model, key, divided.percent):
            return divided.route
        if (address is None or address == Alias.CHAMPION) and (main := self._main.get(model)) is not None:
            return main
        return self._named(model, address)

    def _named(self, model: str, address: str | None) -> Route:
        routes = self.of(model)
        if address is None:
            raise NotServed(f"model '{model}' has no champion", exists=routes.addresses())
        if (version := routes.by_alias.get(address)) is not None:
            variant = Variant.CHALLENGER if address == Alias.CHALLENGER else Variant.DIRECT
            return Route(version, None, variant, address)
        if (version := routes.by_version(address)) is not None:
            return Route(version, None, Variant.DIRECT, None)
        problem = f"model '{model}' does not serve version or alias '{address}'"
        raise NotServed(problem, exists=routes.addresses())
