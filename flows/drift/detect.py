"""The one call into Evidently; imported only by a check that has something to compare.

From 1000 rows on both sides Evidently's default methods are used, below it two-sample tests, because
distances between small samples are large by chance. Whether a test failed is read from its status:
what a score means depends on the method.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from flows.drift.screen import Kind, Pair
from flows.drift.verdict import Score

with warnings.catch_warnings():
    # Evidently and its dashboard framework warn about their own internals when imported.
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

DEFAULT_METHOD_ROWS = 1000
_LARGE: Mapping[Kind, str] = {Kind.NUMBER: "wasserstein", Kind.CATEGORY: "jensenshannon"}
_SMALL: Mapping[Kind, str] = {Kind.NUMBER: "ks", Kind.CATEGORY: "chisquare"}


class Comparison:
    """Scores per column, and Evidently's own report of them."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        methods = {pair.column: method_of(pair) for pair in pairs}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # divisions by zero in its drawings
            self._run = _evidently(pairs, methods)
        found = self._run.dict()
        failed = {
            test["bound_test"]["metric_fingerprint"]: str(getattr(test["status"], "value", test["status"]))
            for test in found["tests"]
        }
        of_column = {metric["config"]["column"]: metric for metric in found["metrics"]}
        self.scores = [
            _score(pair, of_column[pair.column], failed[of_column[pair.column]["id"]] == "FAIL")
            for pair in pairs
        ]

    def save_html(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._run.save_html(str(path))  # given a Path it writes nothing and says nothing


def method_of(pair: Pair) -> str:
    """Distances are scaled by the reference's spread, which a constant reference does not have."""
    is_large = min(len(pair.reference), len(pair.current)) >= DEFAULT_METHOD_ROWS
    if pair.kind is Kind.NUMBER and pair.reference.nunique() == 1:
        return _SMALL[pair.kind]
    return (_LARGE if is_large else _SMALL)[pair.kind]


def _evidently(pairs: Sequence[Pair], methods: Mapping[str, str]) -> Any:
    definition = DataDefinition(
        numerical_columns=[pair.column for pair in pairs if pair.kind is Kind.NUMBER],
        categorical_columns=[pair.column for pair in pairs if pair.kind is Kind.CATEGORY],
    )
    reference, current = (
        Dataset.from_pandas(pd.DataFrame(values), data_definition=definition)
        for values in (
            {pair.column: pair.reference.reset_index(drop=True) for pair in pairs},
            {pair.column: pair.current.reset_index(drop=True) for pair in pairs},
        )
    )
    metrics = [ValueDrift(column=column, method=method) for column, method in methods.items()]
    return Report(metrics, include_tests=True).run(current, reference)


def _score(pair: Pair, metric: Mapping[str, Any], failed: bool) -> Score:
    is_number = pair.kind is Kind.NUMBER
    p_value, distance = _ks(pair) if is_number else _chi_square(pair)
    return Score(
        column=pair.column,
        method=str(metric["config"]["method"]),
        score=float(metric["value"]),
        threshold=float(metric["config"]["threshold"]),
        failed=failed,
        p_value=p_value,
        distance=distance,
        shift=float(pair.current.median() - pair.reference.median()) if is_number else None,
    )


def _ks(pair: Pair) -> tuple[float, float]:
    result = stats.ks_2samp(pair.reference, pair.current, method="asymp")
    return float(result.pvalue), float(result.statistic)


def _chi_square(pair: Pair) -> tuple[float, float]:
    """P-value, and the total variation distance between the two shares of categories."""
    counts = pd.concat([pair.reference.value_counts(), pair.current.value_counts()], axis=1).fillna(0)
    table = counts.to_numpy().T
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return float(stats.chi2_contingency(table).pvalue), distance
