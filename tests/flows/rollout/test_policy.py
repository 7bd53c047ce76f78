"""The policy file and the plan made of it: defaults per type, overlays, and a sentence for what is wrong."""

from pathlib import Path

import pytest

from flows.rollout.policy import Kind, Spec, Usual, kind_of, limits, percents_of, plan_of, read_policy


@pytest.mark.parametrize("kind", [None, *Kind])
def test_every_type_has_a_policy(kind: Kind | None) -> None:
    assert read_policy(kind).min_samples == 50


def test_own_file_is_laid_over_the_defaults(tmp_path: Path) -> None:
    """Limit by limit, and by type."""
    own = tmp_path / "own.toml"
    own.write_text("[default]\nmin_samples = 7\n[router]\nmax_disagreement_ratio = 0.5\n")
    router, other = read_policy(Kind.ROUTER, own), read_policy(None, own)
    assert (router.min_samples, router.max_disagreement_ratio, router.min_pairs) == (7, 0.5, 30)
    assert (other.min_samples, other.max_disagreement_ratio) == (7, 0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[default]\nmin_samples = 'x'", "table default: min_samples: ", id="type"),
        pytest.param("[default]\nmin_sample = 5", "table default: min_sample: ", id="unknown-limit"),
        pytest.param("[default]\nerror_alpha = 2", "error_alpha: Input should be less than 1", id="range"),
        pytest.param("[default]\nrequired = ['cpu']", "required.0: ", id="unknown-metric"),
        pytest.param("[robot]", "has a part 'robot'; use the tables default, ", id="table"),
        pytest.param("default = 3", "'default' must be a table, [default]", id="no-table"),
        pytest.param("min_samples 5", "is no TOML: ", id="no-toml"),
    ],
)
def test_bad_policy_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    """Naming the file and the place in it."""
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(ValueError, match="rollout policy") as refused:
        read_policy(None, own)
    assert words in str(refused.value)
    assert str(own) in str(refused.value)


def test_policy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_policy(None, tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "percents"),
    [
        ("5,25,50,100", (5, 25, 50, 100)),
        (" 5 % , 100%", (5, 100)),
        ("100", (100,)),
        ([1, 100], (1, 100)),
        ("shadow,5,100", (0, 5, 100)),
        ([0, 100], (0, 100)),
    ],
)
def test_stages_are_read(text: object, percents: tuple[int, ...]) -> None:
    assert percents_of(text) == percents


@pytest.mark.parametrize(
    "text",
    ["", "0", "5,0,100", "5,shadow,100", "5,50", "50,25,100", "5,5,100", "5;100", "5.5,100", "101", "-5,100"],
)
def test_stages_are_refused_unless_they_rise_to_100(text: str) -> None:
    with pytest.raises(ValueError, match="stages must"):
        percents_of(text)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage_seconds": "soon"}, "stage_seconds must be a number, not 'soon'"),
        ({"stage_seconds": 0}, "stage_seconds must be more than 0"),
        ({"stage_deadline_seconds": "nan"}, "stage_deadline_seconds must be more than 0"),
        ({"approve_before": "101"}, "approve_before must be a percent"),
    ],
)
def test_plan_is_refused_in_a_sentence(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        limits(given)


def test_plan_takes_the_usual_where_nothing_is_given() -> None:
    """The deadline is the larger of 900 s and ten times the shortest time."""
    spec = plan_of({}, Usual("10,100", 120.0), Kind.CLASSIFIER)
    assert (spec.percents, spec.stage_seconds, spec.deadline_seconds) == ((10, 100), 120.0, 1200.0)
    assert plan_of({"stage_seconds": "5"}, Usual(), None).deadline_seconds == 900.0
    assert Spec.from_json(spec.as_json()) == spec
    sliced = plan_of({}, Usual(), None, slices='{"rare": [7, "9"]}')
    assert sliced.slices == {"rare": ("7", "9")}
    assert Spec.from_json(sliced.as_json()) == sliced
    with pytest.raises(ValueError, match="is shorter than stage_seconds"):
        plan_of({"stage_seconds": 60, "stage_deadline_seconds": 59}, Usual(), None)


def test_unknown_type_is_judged_by_its_answers() -> None:
    assert (kind_of("router"), kind_of("oracle"), kind_of(None)) == (Kind.ROUTER, None, None)
