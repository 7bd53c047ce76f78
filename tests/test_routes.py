"""Which version answers: by alias, by number, by default, and who stands in."""

import pytest

from serving.core.comparison import Role
from serving.core.errors import NotServed
from serving.core.model import Variant
from serving.core.traffic import Split, goes_to_challenger
from serving.pool import LoadedVersion
from serving.routes import CopyTarget, ModelRoutes, Routes
from tests.versions import loaded

OLD, NOW, NEXT = loaded("9"), loaded("10"), loaded("11")


@pytest.fixture
def routes() -> Routes:
    routes = Routes()
    table = {"champion": NOW, "previous": OLD, "challenger": NEXT, "nightly": NEXT}
    routes.publish("digits", ModelRoutes(table, previous=OLD))
    return routes


@pytest.mark.parametrize(
    ("address", "version", "variant", "alias", "has_fallback"),
    [
        (None, "10", Variant.CHAMPION, "champion", True),
        ("champion", "10", Variant.CHAMPION, "champion", True),
        ("challenger", "11", Variant.CHALLENGER, "challenger", False),
        ("previous", "9", Variant.DIRECT, "previous", False),
        ("nightly", "11", Variant.DIRECT, "nightly", False),
        ("10", "10", Variant.DIRECT, None, False),
        ("9", "9", Variant.DIRECT, None, False),
    ],
)
def test_route_is_found_by_address(
    routes: Routes, address: str | None, version: str, variant: Variant, alias: str | None, has_fallback: bool
) -> None:
    """Only the champion has a stand-in: whoever names another version wants that one's own answer."""
    route = routes.find("digits", address)
    assert (route.version.ref.version, route.variant, route.alias) == (version, variant, alias)
    assert route.fallback is (OLD if has_fallback else None)


CHALLENGERS = [key for key in map(str, range(200)) if goes_to_challenger("digits", key, 25)]


@pytest.mark.parametrize(
    ("address", "variant"),
    [
        pytest.param(None, Variant.CHALLENGER, id="nothing-named"),
        pytest.param("champion", Variant.CHAMPION, id="champion"),
        pytest.param("10", Variant.DIRECT, id="number"),
        pytest.param("nightly", Variant.DIRECT, id="alias"),
    ],
)
def test_split_is_for_requests_that_name_no_version(address: str | None, variant: Variant) -> None:
    """Whoever names one gets exactly that."""
    routes = Routes()
    table = {"champion": NOW, "challenger": NEXT, "nightly": OLD}
    routes.publish("digits", ModelRoutes(table, previous=OLD, split=Split("11", 25)))
    assert routes.find("digits", address, CHALLENGERS[0]).variant is variant


def test_split_gives_the_challenger_exactly_its_keys_and_the_champion_to_stand_in() -> None:
    """By key; a look-up without one, as metadata's, shows the champion."""
    routes = Routes()
    table = {"champion": NOW, "challenger": NEXT}
    routes.publish("digits", ModelRoutes(table, previous=OLD, split=Split("11", 25)))
    found = {key: routes.find("digits", None, key) for key in map(str, range(200))}
    assert [key for key, route in found.items() if route.version is NEXT] == CHALLENGERS
    assert {route.fallback for route in found.values() if route.version is NEXT} == {NOW}
    assert {route.fallback for route in found.values() if route.version is NOW} == {OLD}
    assert routes.find("digits", None).version is NOW


@pytest.mark.parametrize(("percent", "version"), [(0, NOW), (100, NEXT)])
def test_split_is_exact_at_its_ends(percent: int, version: LoadedVersion) -> None:
    routes = Routes()
    routes.publish("digits", ModelRoutes({"champion": NOW, "challenger": NEXT}, split=Split("11", percent)))
    assert {routes.find("digits", None, str(n)).version for n in range(1000)} == {version}


@pytest.mark.parametrize("address", ["8", "shadow", "", "champion "])
def test_route_names_what_exists_when_the_address_does_not(routes: Routes, address: str) -> None:
    """Aliases, then numbers in their order."""
    with pytest.raises(NotServed) as refusal:
        routes.find("digits", address)
    assert refusal.value.exists == ("challenger", "champion", "nightly", "previous", "9", "10", "11")


def test_route_names_the_models_when_the_model_does_not_exist(routes: Routes) -> None:
    """So does every call that names a model."""
    routes.publish("another", ModelRoutes({"champion": OLD}))
    with pytest.raises(NotServed, match="model 'nope' is not served; available: another, digits"):
        routes.find("nope", None)


def test_route_says_so_when_there_is_no_champion() -> None:
    """A challenger alone is no answer to a plain request."""
    routes = Routes()
    routes.publish("digits", ModelRoutes({"challenger": NEXT}))
    with pytest.raises(NotServed, match="has no champion; available: challenger, 11"):
        routes.find("digits", None)


def test_previous_is_no_address_when_no_alias_names_it() -> None:
    """It is kept warm as a stand-in; a request addresses versions that carry an alias."""
    routes = Routes()
    routes.publish("digits", ModelRoutes({"champion": NOW}, previous=OLD))
    with pytest.raises(NotServed):
        routes.find("digits", "9")


def test_model_is_gone_when_its_table_is_empty(routes: Routes) -> None:
    """Its last alias was dropped."""
    routes.publish("digits", ModelRoutes())
    assert routes.names() == []
    routes.publish("digits", ModelRoutes())


def test_route_keeps_its_version_when_a_new_table_is_published(routes: Routes) -> None:
    """A request chooses once; publishing is the swap."""
    before = routes.find("digits", None)
    routes.publish("digits", ModelRoutes({"champion": NEXT}, previous=NOW))
    assert before.version is NOW
    assert routes.find("digits", None).version is NEXT


def test_version_before_gets_copies_of_all_requests_while_it_is_the_control() -> None:
    """Whoever else would; a version that is shadow as well is compared as the control alone."""
    table = {"champion": NOW, "shadow": OLD}
    control = ModelRoutes(table, previous=OLD, control=OLD).main()
    usual = ModelRoutes(table, previous=OLD).main()
    assert control is not None
    assert usual is not None
    assert control.copies == (CopyTarget(OLD, Role.CHALLENGER, is_control=True, percent=100, by_share=True),)
    assert usual.copies == (CopyTarget(OLD, Role.SHADOW),)
    assert (control.version, control.fallback) == (NOW, OLD)
