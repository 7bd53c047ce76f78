"""That the suite covers what it claims to: enough models, and every operator that has a translation."""

from flows.translation.operators.table import CONSTANTS, REASONS, TRANSLATORS
from tests.flows.translation import test_operators, test_windows
from tests.flows.translation.cases import CASES
from tests.flows.translation.parity import quiet
from tests.flows.translation.parity_report import lines, measured_programs

# Built by hand in test_control, test_recurrent and test_core_ml: they take tuples, blocks or lists.
_BY_HAND = {
    "batch_to_space",
    "classify",
    "concat",
    "cond",
    "dequantize",
    "einsum",
    "fill",
    "gru",
    "list_gather",
    "list_length",
    "list_read",
    "list_scatter",
    "list_write",
    "lstm",
    "make_list",
    "range_1d",
    "reshape_like",
    "rnn",
    "space_to_batch",
    "stack",
    "while_loop",
}
_LEFT_OUT = {
    "conv_quantized",  # experimental, in no released converter
    "non_maximum_suppression",  # belongs to detection pipelines, which are refused as a whole
}


def test_suite_holds_enough_models_when_counted() -> None:
    """At least 25 in full precision, most of them in half precision too."""
    assert len(CASES) >= 25
    assert sum(case.half for case in CASES.values()) >= 25


def test_every_translated_operator_is_tested_when_listed() -> None:
    """Alone or in a model."""
    alone = {case.operator for case in (*test_operators.CASES, *test_windows.CASES)}
    in_models = {operator for one in measured_programs() for operator in one.operators}
    assert set(TRANSLATORS) - alone - in_models - _BY_HAND == set()


def test_every_operator_of_core_ml_is_decided_on_when_listed() -> None:
    """A coremltools with further operators makes this fail, so that somebody decides about them."""
    with quiet():
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    known = {name for name in SSAOpRegistry.core_ops if not name.startswith("_")}
    assert known - set(TRANSLATORS) - CONSTANTS - set(REASONS) == _LEFT_OUT


def test_report_names_families_and_operators_when_printed() -> None:
    """One line per family and precision, then the totals."""
    printed = "\n".join(lines(measured_programs()))
    assert "fp32     recurrent" in printed
    assert "operators of programs" in printed
    assert "not the numerics" in printed
