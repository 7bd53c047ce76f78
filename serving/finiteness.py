"""NaN and infinities in the outputs of a version: who must not get them, and whose fault they are."""

from collections.abc import Mapping

from serving.core.datatypes import Array, is_finite
from serving.protocol.json_data import first_non_finite

Arrays = Mapping[str, Array]
Finite = bool | frozenset[str]  # all outputs, none, or those of these names


def culprit(outputs: Arrays, finite: Finite) -> str | None:
    """The first output that must be finite and is not."""
    if not finite:
        return None
    if finite is True:
        return first_non_finite(outputs)
    return first_non_finite({name: array for name, array in outputs.items() if name in finite})


def is_fault(outputs: Arrays, others: Arrays) -> bool:
    """Whether an output is not finite that another version, of the same input, gave finite."""
    return any(
        not is_finite(array) and name in others and is_finite(others[name]) for name, array in outputs.items()
    )
