"""What is found in real versions: good ones, and each kind of bad one beside a good champion."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.catalog.checks import judge
from flows.catalog.facts import Facts, Metric, Source
from flows.catalog.verdict import CheckName, Verdict, overall
from serving.formats.golden import Golden, write_golden
from tests.flows.catalog.folders import (
    QUICK,
    evaluation_file,
    facts_of,
    one_hot_rows,
    onnx_batch_mean,
    onnx_noise,
    onnx_row_sum,
    onnx_shifted_classes,
    task,
)
from tests.models import (
    describe,
    onnx_adder,
    onnx_echo,
    onnx_nan,
    onnx_raises_on_negative,
    onnx_wrong_shape,
    save_onnx,
    save_torch_script,
    torch_adder,
)

EXAMPLE = [[1.0, 2.0, 3.0]]
PAIR = [("x", "float32", [-1, 3])]


def failed(facts: Facts) -> set[CheckName]:
    return {check.name for check in judge(facts, QUICK) if check.verdict is Verdict.FAILED}


def verdict_of(name: CheckName, facts: Facts) -> Verdict:
    return next(check.verdict for check in judge(facts, QUICK) if check.name is name)


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    """`y = x`, with an example of positive numbers."""
    return describe(onnx_echo(tmp_path / "champion"), flavor="onnx", example=EXAMPLE)


def test_version_passes_when_it_equals_the_champion(tmp_path: Path, champion: Path) -> None:
    """Every check that has something to look at passes."""
    path = evaluation_file(tmp_path, {"x": one_hot_rows(90)}, np.arange(90) % 3)
    facts = facts_of(task(champion, champion, evaluation=path), tmp_path / "work")
    checks = judge(facts, QUICK)
    assert overall(checks) is Verdict.PASSED
    missing = {check.name for check in checks if check.verdict is Verdict.NOT_MEASURED}
    assert missing == {CheckName.GOLDEN, CheckName.PARITY, CheckName.REPLAY, CheckName.SIMILARITY}
    assert facts.score is not None
    assert facts.score.metric is Metric.ACCURACY
    assert (facts.score.candidate[0].value, facts.score.champion[0].value) == (1.0, 1.0)
    assert facts.score.difference is not None
    assert facts.score.difference.is_same
    assert (facts.score.rows, facts.score.total) == (90, 90)
    sources = [trial.source for trial in facts.trials]
    assert sources == [Source.EVALUATION, Source.EXAMPLE, Source.CHAMPION, Source.ZEROS]
    assert facts.latency is not None
    assert facts.latency.champion is not None


def test_version_is_measured_alone_when_there_is_no_champion(tmp_path: Path) -> None:
    """The first version of a model is judged by itself, on zeros if nothing else is known."""
    facts = facts_of(task(onnx_echo(tmp_path / "only")), tmp_path / "work")
    assert overall(judge(facts, QUICK)) is Verdict.PASSED
    assert [trial.source for trial in facts.trials] == [Source.ZEROS]
    assert verdict_of(CheckName.CONTRACT, facts) is Verdict.NOT_MEASURED


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(onnx_wrong_shape, {CheckName.SELF_TEST, CheckName.CONTRACT, CheckName.ANSWERS}, id="v3"),
        pytest.param(onnx_batch_mean, {CheckName.BATCH_INVARIANCE}, id="rows influence one another"),
        pytest.param(onnx_noise, {CheckName.BATCH_INVARIANCE, CheckName.DETERMINISM}, id="random"),
        pytest.param(lambda folder: onnx_echo(folder, dims=(1, 3)), {CheckName.CONTRACT}, id="fixed batch"),
        pytest.param(onnx_row_sum, {CheckName.CONTRACT, CheckName.ANSWERS}, id="other output"),
    ],
)
def test_bad_version_fails_by_name_when_beside_a_champion(
    tmp_path: Path, champion: Path, make: Any, expected: set[CheckName]
) -> None:
    """Each defect is found by the check that is named for it, and by no other than those it implies."""
    assert failed(facts_of(task(make(tmp_path / "bad"), champion), tmp_path / "work")) == expected


def test_version_that_raises_on_real_input_is_caught_by_the_champions_example(tmp_path: Path) -> None:
    """Zeros pass and it has no example of its own; the champion's shows it, even without a set."""
    example = [[-1.0, 2.0, 3.0]]
    champion = describe(onnx_echo(tmp_path / "champion"), flavor="onnx", example=example)
    facts = facts_of(task(onnx_raises_on_negative(tmp_path / "bad"), champion), tmp_path / "work")
    assert failed(facts) == {CheckName.ANSWERS, CheckName.ODD_INPUTS}
    assert verdict_of(CheckName.SELF_TEST, facts) is Verdict.PASSED


def test_zeros_excuse_when_outputs_are_not_finite_or_the_champion_raises_too(tmp_path: Path) -> None:
    """On inputs of our making NaN is a warning, whoever the champion is."""
    facts = facts_of(task(onnx_nan(tmp_path / "nan"), onnx_echo(tmp_path / "one")), tmp_path / "work")
    assert failed(facts) == set()
    assert verdict_of(CheckName.FINITE, facts) is Verdict.WARNING


def test_nan_fails_when_the_example_shows_it(tmp_path: Path, champion: Path) -> None:
    """On recorded input it is a failure."""
    bad = describe(onnx_nan(tmp_path / "nan"), flavor="onnx", example=[[0.0, 0.0, 0.0]])
    found = failed(facts_of(task(bad, champion), tmp_path / "work"))
    assert {CheckName.FINITE, CheckName.SELF_TEST} <= found


@pytest.mark.parametrize(("recorded", "expected"), [(2.0, set()), (2.5, {CheckName.GOLDEN})])
def test_golden_set_decides_when_recorded(tmp_path: Path, recorded: float, expected: set[CheckName]) -> None:
    """Outputs must be those recorded at registration."""
    root = onnx_adder(tmp_path / "golden")
    row = np.ones((1, 3), np.float32)
    write_golden(root, Golden({"x": row}, {"y": row * np.float32(recorded)}))
    facts = facts_of(task(root), tmp_path / "work")
    assert failed(facts) - {CheckName.SELF_TEST} == expected
    assert facts.trials[0].source is Source.GOLDEN


def test_worse_classifier_fails_when_scored_against_the_champion(tmp_path: Path, champion: Path) -> None:
    """It keeps every contract and is simply wrong."""
    path = evaluation_file(tmp_path, {"x": one_hot_rows(200)}, np.arange(200) % 3)
    bad = onnx_shifted_classes(tmp_path / "bad")
    facts = facts_of(task(bad, champion, evaluation=path), tmp_path / "work")
    assert failed(facts) == {CheckName.ACCURACY}
    assert facts.score is not None
    assert (facts.score.candidate[0].value, facts.score.champion[0].value) == (0.0, 1.0)


def test_better_classifier_passes_when_the_champion_is_wrong(tmp_path: Path, champion: Path) -> None:
    """The comparison has a direction."""
    path = evaluation_file(tmp_path, {"x": one_hot_rows(200)}, np.arange(200) % 3)
    wrong = onnx_shifted_classes(tmp_path / "wrong")
    assert failed(facts_of(task(champion, wrong, evaluation=path), tmp_path / "work")) == set()


@pytest.mark.parametrize(("factor", "expected"), [(1.02, set()), (1.2, {CheckName.ACCURACY})])
def test_predictor_is_scored_by_error_when_it_gives_one_float_per_row(
    tmp_path: Path, factor: float, expected: set[CheckName]
) -> None:
    """Mean absolute error, worse only beyond the ratio to the champion's."""
    rows = one_hot_rows(30)
    path = evaluation_file(tmp_path, {"x": rows}, rows.sum(axis=1) + 1.0)
    champion = onnx_row_sum(tmp_path / "champion", 2 - 1 / 1.05)  # error 1 / 1.05 on every row
    candidate = onnx_row_sum(tmp_path / "candidate", 2 - factor / 1.05)
    facts = facts_of(task(candidate, champion, evaluation=path), tmp_path / "work")
    assert facts.score is not None
    assert facts.score.metric is Metric.ERROR
    assert failed(facts) == expected


@pytest.mark.parametrize(
    ("inputs", "labels", "why"),
    [
        pytest.param({"z": one_hot_rows(4)}, np.arange(4), "has no input 'x'", id="other input"),
        pytest.param({"x": np.zeros((4, 3))}, np.arange(4), "is FP64", id="other type"),
        pytest.param({"x": np.zeros((4, 2), np.float32)}, np.arange(4), "has shape [4, 2]", id="other shape"),
        pytest.param({"x": one_hot_rows(4)}, np.arange(3), "one label per row", id="labels too few"),
        pytest.param({"x": one_hot_rows(4)}, None, "no 'labels'", id="no labels"),
        pytest.param({"x": one_hot_rows(4)}, np.arange(4), "no class number below 3", id="unknown class"),
    ],
)
def test_set_that_does_not_fit_fails_in_one_sentence_when_declared(
    tmp_path: Path, champion: Path, inputs: dict[str, Any], labels: Any, why: str
) -> None:
    """Accuracy is required where a set is declared, so a set that cannot be used refuses."""
    path = evaluation_file(tmp_path, inputs, labels)
    facts = facts_of(task(champion, champion, evaluation=path), tmp_path / "work")
    assert failed(facts) == {CheckName.ACCURACY}
    assert why in next(check.message for check in judge(facts, QUICK) if check.name is CheckName.ACCURACY)


def test_last_rows_are_left_out_when_the_batch_is_fixed(tmp_path: Path) -> None:
    """A model that takes exactly four rows is asked whole batches only."""
    root = onnx_echo(tmp_path / "fixed", dims=(4, 3))
    path = evaluation_file(tmp_path, {"x": one_hot_rows(10)}, np.arange(10) % 3)
    facts = facts_of(task(root, root, evaluation=path), tmp_path / "work")
    assert facts.score is not None
    assert (facts.score.rows, facts.score.total, facts.score.candidate[0].value) == (8, 10, 1.0)
    assert verdict_of(CheckName.BATCH_INVARIANCE, facts) is Verdict.NOT_MEASURED


def test_comparison_is_left_out_when_the_champion_cannot_be_loaded(tmp_path: Path) -> None:
    """A champion that is broken must not stand in the way of its own replacement."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    facts = facts_of(task(onnx_echo(tmp_path / "good"), broken), tmp_path / "work")
    assert overall(judge(facts, QUICK)) is Verdict.PASSED
    message = next(check.message for check in judge(facts, QUICK) if check.name is CheckName.CONTRACT)
    assert "champion 1 could not be measured: 'model.onnx' is a text file" in message


@pytest.mark.parametrize("spoil", [b"", b"version https://git-lfs", b"\x08\x09junk"])
def test_version_fails_to_load_when_its_file_is_no_model(tmp_path: Path, spoil: bytes) -> None:
    """The refusal of the loader is the report's reason."""
    root = tmp_path / "bad"
    root.mkdir()
    (root / "model.onnx").write_bytes(spoil)
    facts = facts_of(task(root), tmp_path / "work")
    assert failed(facts) == {CheckName.LOADS}


def test_version_fails_to_load_when_its_files_were_changed(tmp_path: Path) -> None:
    """A payload that is not the registered one is refused before anything of it is loaded."""
    facts = facts_of(task(onnx_echo(tmp_path / "one"), digest="0" * 64), tmp_path / "work")
    assert failed(facts) == {CheckName.LOADS}
    assert "register the changed files as a new version" in judge(facts, QUICK)[0].message


def test_script_without_signature_is_open_and_passes_when_beside_onnx(tmp_path: Path) -> None:
    """Nothing says what it takes, so the champion's example is what it is asked."""
    champion = describe(onnx_adder(tmp_path / "champion"), flavor="onnx", example=EXAMPLE)
    facts = facts_of(task(torch_adder(tmp_path / "script"), champion), tmp_path / "work")
    assert facts.candidate is not None
    assert facts.candidate.inputs[0].dims is None
    assert verdict_of(CheckName.SELF_TEST, facts) is Verdict.NOT_MEASURED
    # Its output goes by another name than the champion's, which no caller would find.
    assert failed(facts) == {CheckName.CONTRACT, CheckName.ANSWERS}


def test_script_passes_when_champion_is_a_script_too(tmp_path: Path) -> None:
    """Two scripts without signature promise nothing to one another; what can be asked is asked."""
    champion = describe(torch_adder(tmp_path / "champion"), example=EXAMPLE)
    facts = facts_of(task(torch_adder(tmp_path / "script"), champion), tmp_path / "work")
    assert failed(facts) == set()
    assert overall(judge(facts, QUICK)) is Verdict.WARNING
    assert verdict_of(CheckName.DETERMINISM, facts) is Verdict.PASSED


def test_script_with_signature_is_compared_in_batches_when_asked(tmp_path: Path) -> None:
    """A row of one value is told apart from its neighbours by fractions of itself."""
    source = "def forward(self, x: Tensor) -> Tensor:\n    return x - x.mean(0)"
    root = describe(save_torch_script(tmp_path / "mean", source), inputs=PAIR, outputs=PAIR, example=EXAMPLE)
    assert failed(facts_of(task(root), tmp_path / "work")) == {CheckName.BATCH_INVARIANCE}


def test_rows_are_not_compared_when_an_output_has_no_batch_axis(tmp_path: Path) -> None:
    """A sum over the batch is the model's meaning, not a leak between rows."""
    import onnx

    model = onnx.load(onnx_echo(tmp_path / "echo") / "model.onnx")
    model.graph.node[0].op_type = "ReduceSum"
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("keepdims", 0))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    facts = facts_of(task(save_onnx(tmp_path / "sum", model)), tmp_path / "work")
    assert verdict_of(CheckName.BATCH_INVARIANCE, facts) is Verdict.NOT_MEASURED
    assert failed(facts) == set()
