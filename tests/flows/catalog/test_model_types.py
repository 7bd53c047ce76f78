"""Extractors and routers, measured on real versions: what counts for each is another thing."""

from pathlib import Path

import numpy as np
import pytest

from flows.catalog.checks import judge
from flows.catalog.facts import Facts, Metric
from flows.catalog.verdict import Check, CheckName, Verdict
from tests.flows.catalog.folders import (
    QUICK,
    Array,
    evaluation_file,
    facts_of,
    one_hot_rows,
    onnx_projection,
    onnx_row_sum,
    onnx_shifted_classes,
    task,
)
from tests.models import onnx_echo

CHANCE = np.random.default_rng(11)


def checks(facts: Facts) -> dict[CheckName, Check]:
    return {check.name: check for check in judge(facts, QUICK)}


def measured(
    tmp_path: Path, candidate: Path, champion: Path | None, evaluation: Path, kind: str
) -> dict[CheckName, Check]:
    wanted = task(candidate, champion, evaluation=evaluation, model_type=kind)
    return checks(facts_of(wanted, tmp_path / "work"))


@pytest.fixture
def clusters(tmp_path: Path) -> Path:
    """300 rows near three axes, labelled by their axis."""
    rows = one_hot_rows(300) + CHANCE.normal(0, 0.1, (300, 3)).astype(np.float32)
    return evaluation_file(tmp_path / "clusters", {"x": rows.astype(np.float32)}, np.arange(300) % 3)


def test_extractor_passes_when_its_space_is_the_champions(tmp_path: Path, clusters: Path) -> None:
    """Downstream score and similarity are both measured."""
    echo = onnx_echo(tmp_path / "echo")
    found = measured(tmp_path, echo, echo, clusters, "extractor")
    assert found[CheckName.ACCURACY].verdict is Verdict.PASSED
    assert found[CheckName.ACCURACY].evidence["metric"] == str(Metric.NEIGHBOURS)
    assert found[CheckName.SIMILARITY].verdict is Verdict.PASSED
    assert found[CheckName.SIMILARITY].evidence["neighbour_overlap"] == 1.0


def test_extractor_is_told_apart_when_its_space_is_turned(tmp_path: Path, clusters: Path) -> None:
    """As good downstream with the same neighbours; stored embeddings are another matter, and told."""
    turned = onnx_shifted_classes(tmp_path / "turned")
    found = measured(tmp_path, turned, onnx_echo(tmp_path / "echo"), clusters, "extractor")
    assert found[CheckName.ACCURACY].verdict is Verdict.PASSED
    assert found[CheckName.SIMILARITY].verdict is Verdict.PASSED
    cosine = found[CheckName.SIMILARITY].evidence["cosine_mean"]
    assert isinstance(cosine, float)
    assert cosine < 0.5


def test_extractor_fails_when_classes_fall_together(tmp_path: Path, clusters: Path) -> None:
    """An embedding that keeps only the sum of the axes separates nothing."""
    flat = onnx_projection(tmp_path / "flat", np.ones((3, 3)))
    found = measured(tmp_path, flat, onnx_echo(tmp_path / "echo"), clusters, "extractor")
    assert found[CheckName.ACCURACY].verdict is Verdict.FAILED
    assert found[CheckName.ACCURACY].message.startswith("nearest-neighbour accuracy")
    assert found[CheckName.SIMILARITY].verdict is Verdict.WARNING


def test_extractor_is_not_scored_when_it_gives_one_number(tmp_path: Path, clusters: Path) -> None:
    """What does not fit is said of the output, and refuses."""
    found = measured(tmp_path, onnx_row_sum(tmp_path / "sum"), None, clusters, "extractor")
    assert found[CheckName.ACCURACY].verdict is Verdict.FAILED
    assert "an extractor gives an embedding per row" in found[CheckName.ACCURACY].message


def routes_file(folder: Path, name: str, routes: Array) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "evaluation.npz"
    rows = one_hot_rows(len(routes))
    np.savez(path, allow_pickle=False, **{"input:x": rows, name: routes})
    return path


@pytest.mark.parametrize(("name", "sign"), [("route_values", 1.0), ("route_costs", -1.0)])
def test_router_is_scored_by_regret_when_routes_have_values(tmp_path: Path, name: str, sign: float) -> None:
    """An echo takes the best route of each row; the other always takes one that is worth 0.4 less."""
    best = one_hot_rows(120) * 1.0
    path = routes_file(tmp_path / "routes", name, sign * (best + np.roll(best, -1, axis=1) * 0.6))
    echo, other = onnx_echo(tmp_path / "echo"), onnx_shifted_classes(tmp_path / "other")
    good = measured(tmp_path, echo, other, path, "router")[CheckName.ACCURACY]
    assert (good.verdict, good.evidence["regret"], good.evidence["best_route"]) == (Verdict.PASSED, 0.0, 1.0)
    assert good.evidence["champion_regret"] == pytest.approx(0.4)
    bad = measured(tmp_path, other, echo, path, "router")[CheckName.ACCURACY]
    assert bad.verdict is Verdict.FAILED
    assert "clearly worse" in bad.message
    assert bad.message.startswith("mean regret 0.4 ")


def test_router_is_scored_by_its_best_route_when_values_are_missing(tmp_path: Path) -> None:
    """Labels that name the best route make it a classifier of routes."""
    path = evaluation_file(tmp_path / "labels", {"x": one_hot_rows(60)}, np.arange(60) % 3)
    found = measured(tmp_path, onnx_echo(tmp_path / "echo"), None, path, "router")[CheckName.ACCURACY]
    assert (found.verdict, found.evidence["accuracy"]) == (Verdict.PASSED, 1.0)


def test_router_is_not_scored_when_routes_do_not_fit(tmp_path: Path) -> None:
    """Two routes in the set, three in the model."""
    path = routes_file(tmp_path / "routes", "route_values", CHANCE.random((60, 2)))
    found = measured(tmp_path, onnx_echo(tmp_path / "echo"), None, path, "router")[CheckName.ACCURACY]
    assert found.verdict is Verdict.FAILED
    assert "a router gives one score per route (2 in the set)" in found.message


def test_unknown_type_is_named_when_scored(tmp_path: Path, clusters: Path) -> None:
    """A typing error in a tag must not end as a pass."""
    found = measured(tmp_path, onnx_echo(tmp_path / "echo"), None, clusters, "oracle")[CheckName.ACCURACY]
    assert found.verdict is Verdict.FAILED
    assert "not 'oracle'" in found.message


def test_two_classes_have_a_positive_one_when_scored(tmp_path: Path) -> None:
    """Macro figures, and those of the class that is asked for."""
    labels = np.where(np.arange(90) % 3 == 2, 1, np.arange(90) % 3)
    path = evaluation_file(tmp_path / "two", {"x": one_hot_rows(90)}, labels)
    merged = onnx_projection(tmp_path / "merged", np.array([[1, 0], [0, 1], [0, 1]]))
    found = measured(tmp_path, merged, None, path, "classifier")[CheckName.ACCURACY]
    assert (found.evidence["f1"], found.evidence["f1_positive"], found.evidence["positive_class"]) == (
        1,
        1,
        "1",
    )


def test_predictor_has_its_figures_when_scored(tmp_path: Path) -> None:
    """MAE, RMSE and R², with intervals and the champion's."""
    rows = CHANCE.random((80, 3)).astype(np.float32)
    path = evaluation_file(tmp_path / "sums", {"x": rows}, rows.sum(axis=1) + CHANCE.normal(0, 0.1, 80))
    good, bad = onnx_row_sum(tmp_path / "good"), onnx_row_sum(tmp_path / "bad", 1.5)
    found = measured(tmp_path, bad, good, path, "predictor")[CheckName.ACCURACY]
    assert found.verdict is Verdict.FAILED
    for name in ("mae", "rmse", "r2"):
        for figure in (name, f"champion_{name}"):
            low, value, high = (found.evidence[key] for key in (f"{figure}_low", figure, f"{figure}_high"))
            assert isinstance(low, float)
            assert isinstance(value, float)
            assert isinstance(high, float)
            assert low <= value <= high
    ratio = found.evidence["ratio"]
    assert isinstance(ratio, float)
    assert ratio > 5
