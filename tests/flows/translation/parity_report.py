"""Prints the parity suite as a table: models, operators, the largest difference of each family.

    python -m tests.flows.translation.parity_report

Differences are scaled as `parity` says.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.flows.translation import network_parity
from tests.flows.translation.cases import CASES
from tests.flows.translation.network_cases import NETWORK_CASES
from tests.flows.translation.parity import LIMITS, Measured, measure

NETWORK = "network"
_LIMITS = {**LIMITS, NETWORK: LIMITS["fp32"]}
_ABSOLUTE = "absolute, outputs of order one"
_SCALES = {"fp32": _ABSOLUTE, "fp16": "relative", NETWORK: _ABSOLUTE}


def measured_programs() -> Iterator[Measured]:
    for name, case in CASES.items():
        yield measure(name, "fp32")
        if case.half:
            yield measure(name, "fp16")


def measured_networks() -> Iterator[Measured]:
    """The older kind of Core ML model; its operators are layers."""
    yield from (network_parity.measure(name) for name in NETWORK_CASES)


def lines(results: Iterable[Measured]) -> Iterator[str]:
    """The table, then what it covers."""
    kept = list(results)
    yield f"{'source':8} {'family':24} {'models':>6} {'largest difference':>19} {'limit':>7}"
    for precision, family in dict.fromkeys((one.precision, one.family) for one in kept):
        group = [one for one in kept if (one.precision, one.family) == (precision, family)]
        largest = max(one.difference for one in group)
        yield f"{precision:8} {family:24} {len(group):6} {largest:19.1e} {_LIMITS[precision]:7.0e}"
    yield ""
    for precision, scale in _SCALES.items():
        group = [one for one in kept if one.precision == precision]
        if group:
            worst = max(group, key=lambda one: one.difference)
            yield f"{precision}: {len(group)} models, largest {worst.difference:.1e} ({worst.name}), {scale}"
    yield from _coverage("operators of programs", (one for one in kept if one.precision != NETWORK))
    yield from _coverage("layers of networks", (one for one in kept if one.precision == NETWORK))
    yield "This checks the program, not the numerics or the speed of Apple's hardware."


def _coverage(what: str, results: Iterable[Measured]) -> Iterator[str]:
    total: Counter[str] = Counter()
    for one in results:
        total += one.operators
    if total:
        yield f"{len(total)} {what}, {total.total()} uses: {', '.join(sorted(total))}"


def main() -> int:
    results = [*measured_programs(), *measured_networks()]
    print("\n".join(lines(results)))
    return int(any(one.difference > _LIMITS[one.precision] for one in results))


if __name__ == "__main__":
    sys.exit(main())
