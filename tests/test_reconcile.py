"""What should change so that a model is served as the registry wants it: both sides of each boundary."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.reconcile import (
    Refusal,
    Step,
    StepKind,
    has_ended,
    orphan_is_over,
    refused,
    registry_lost_everything,
    steps,
    wishes,
)
from serving.store.overrides import Override
from serving.store.registry import RegisteredModel
from tests.versions import BORN_MS, key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def registered(**aliases: str) -> RegisteredModel:
    return RegisteredModel("digits", BORN_MS, aliases, tags={}, description="")


def override(
    not_version: str, answer_with: str | None, *, role: str = "champion", after_seconds: int = 0
) -> Override:
    laid_at = NOW + timedelta(seconds=after_seconds)
    name = f"{role}:{not_version}:{answer_with}"
    return Override(name, "digits", role, not_version, answer_with, "ann", "it fails", laid_at)


@pytest.mark.parametrize(
    ("model", "overrides", "wanted"),
    [
        pytest.param(None, [], {}, id="model-deleted"),
        pytest.param(registered(), [], {}, id="no-alias"),
        pytest.param(
            registered(champion="2", shadow="3"), [], {"champion": "2", "shadow": "3"}, id="as-named"
        ),
        pytest.param(registered(champion="4"), [override("4", "3")], {"champion": "3"}, id="laid-over"),
        pytest.param(registered(champion="5"), [override("4", "3")], {"champion": "5"}, id="ended"),
        pytest.param(registered(), [override("4", "3")], {}, id="alias-gone"),
        pytest.param(
            registered(champion="2", challenger="3"),
            [override("3", None, role="challenger")],
            {"champion": "2"},
            id="ejected",
        ),
        pytest.param(
            registered(champion="4", shadow="4"),
            [override("4", "3")],
            {"champion": "3", "shadow": "4"},
            id="one-role-only",
        ),
        pytest.param(
            registered(champion="4"),
            [override("4", "3"), override("4", "2", after_seconds=1)],
            {"champion": "2"},
            id="the-later-wins",
        ),
        pytest.param(
            registered(champion="4"),
            [override("4", None), override("4", "2", after_seconds=1)],
            {"champion": "2"},
            id="the-later-answers",
        ),
        pytest.param(
            registered(champion="4"),
            [override("4", "2"), override("4", None, after_seconds=1)],
            {},
            id="the-later-ejects",
        ),
        pytest.param(
            registered(champion="4"),
            [override("4", "3"), override("3", "2", after_seconds=1)],
            {"champion": "3"},
            id="no-chain",
        ),
    ],
)
def test_wishes_are_the_registrys_under_the_overrides_in_force(
    model: RegisteredModel | None, overrides: list[Override], wanted: dict[str, str]
) -> None:
    """An override holds for its role while that names the version it was laid against."""
    assert wishes(model, overrides) == {alias: key(version) for alias, version in wanted.items()}


@pytest.mark.parametrize(
    ("aliases", "ended"),
    [({"champion": "4"}, False), ({"champion": "5"}, True), ({}, True), ({"shadow": "4"}, True)],
)
def test_override_ends_when_its_role_names_another_version(aliases: dict[str, str], ended: bool) -> None:
    """Deleting the alias is a choice too."""
    assert has_ended(override("4", "3"), registered(**aliases)) is ended


def serve(alias: str, version: str) -> Step:
    return Step(StepKind.SERVE, alias, key(version))


@pytest.mark.parametrize(
    ("wanted", "served", "due"),
    [
        pytest.param({}, {}, [], id="nothing"),
        pytest.param({"champion": "1"}, {"champion": "1"}, [], id="settled"),
        pytest.param({"champion": "1"}, {}, [serve("champion", "1")], id="new"),
        pytest.param({"champion": "2"}, {"champion": "1"}, [serve("champion", "2")], id="moved"),
        pytest.param({}, {"champion": "1"}, [Step(StepKind.ORPHAN, "champion")], id="champion-gone"),
        pytest.param({}, {"shadow": "1"}, [Step(StepKind.DROP, "shadow")], id="other-gone"),
        pytest.param(
            {"zeta": "1", "shadow": "1", "challenger": "1", "previous": "1", "champion": "1", "alpha": "1"},
            {"old": "1"},
            [
                serve("champion", "1"),
                serve("previous", "1"),
                serve("challenger", "1"),
                serve("shadow", "1"),
                serve("alpha", "1"),
                Step(StepKind.DROP, "old"),
                serve("zeta", "1"),
            ],
            id="most-important-first",
        ),
    ],
)
def test_steps_are_what_differs(wanted: dict[str, str], served: dict[str, str], due: list[Step]) -> None:
    """Champion first; a champion without alias is an orphan and not dropped."""
    assert (
        steps(
            {alias: key(version) for alias, version in wanted.items()},
            {alias: key(version) for alias, version in served.items()},
            {},
            monotonic=0.0,
        )
        == due
    )


def test_steps_serve_again_when_a_namesake_was_registered_anew() -> None:
    """Same name and number, but the model was deleted and created again: another version."""
    anew = key("1", created_ms=BORN_MS + 1)
    assert steps({"champion": anew}, {"champion": key("1")}, {}, 0.0) == [
        Step(StepKind.SERVE, "champion", anew)
    ]


@pytest.mark.parametrize(
    ("refused_version", "monotonic", "is_due"),
    [
        pytest.param("2", 9.999, False, id="too-early"),
        pytest.param("2", 10.0, True, id="due"),
        pytest.param("3", 0.0, True, id="another-version"),
    ],
)
def test_steps_wait_when_the_version_was_refused(
    refused_version: str, monotonic: float, is_due: bool
) -> None:
    """A refusal holds for one version until its retry; a newer wish does not wait."""
    refusal = Refusal(key(refused_version), "broken", attempts=1, retry_at=10.0)
    due = steps({"champion": key("2")}, {}, {"champion": refusal}, monotonic)
    assert bool(due) is is_due


def test_refusal_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    """From 2 s to 5 min, and anew for another version."""
    refusal, waits = None, []
    for _ in range(9):
        refusal = refused(refusal, key("2"), "broken", monotonic=100.0)
        waits.append(refusal.retry_at - 100.0)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert refused(refusal, key("3"), "broken", 0.0).retry_at == 2.0


@pytest.mark.parametrize(("minutes", "over"), [(9.999, False), (10.0, True), (11.0, True)])
def test_orphan_is_over_when_its_minutes_have_passed(minutes: float, over: bool) -> None:
    """Not a moment earlier."""
    assert orphan_is_over(NOW, NOW + timedelta(minutes=minutes), 10.0) is over


def test_orphan_is_over_at_once_when_no_grace_is_given() -> None:
    """Zero minutes are zero."""
    assert orphan_is_over(NOW, NOW, 0.0)


@pytest.mark.parametrize(
    ("named", "served", "lost"),
    [
        pytest.param([], [], False, id="nothing-served-yet"),
        pytest.param(["a"], [], False, id="first-models"),
        pytest.param([], ["a"], True, id="emptied"),
        pytest.param(["x"], ["a", "b"], True, id="another-database"),
        pytest.param(["b"], ["a", "b"], False, id="one-deleted"),
        pytest.param(["a"], ["a"], False, id="as-before"),
    ],
)
def test_registry_lost_everything_when_no_served_model_is_named(
    named: list[str], served: list[str], lost: bool
) -> None:
    """Every served model gone at once is a fault, not a wish."""
    assert registry_lost_everything({name: registered() for name in named}, served) is lost


_versions = st.sampled_from(["1", "2", "3", "4"])
_overrides = st.lists(
    st.builds(
        lambda role, bad, good: override(bad, good, role=role),
        st.sampled_from(["champion", "challenger"]),
        _versions,
        st.none() | _versions,
    ),
    max_size=4,
)


@given(
    aliases=st.dictionaries(st.sampled_from(["champion", "challenger", "shadow"]), _versions),
    overrides=_overrides,
    served=st.dictionaries(st.sampled_from(["champion", "challenger", "shadow"]), _versions),
)
def test_doing_every_step_serves_what_is_wanted(
    aliases: dict[str, str], overrides: list[Override], served: dict[str, str]
) -> None:
    """From any state to any wish, once, and then nothing is left to do."""
    wanted = wishes(registered(**aliases), overrides)
    now = {alias: key(version) for alias, version in served.items()}
    for step in steps(wanted, now, {}, 0.0):
        if step.key is not None:
            now[step.alias] = step.key
        else:
            del now[step.alias]
    assert now == wanted
    assert steps(wanted, now, {}, 0.0) == []
