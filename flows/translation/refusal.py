"""Why a Core ML model cannot become ONNX, as one sentence and as facts.

Every translator raises this and nothing else for what it cannot carry over; several unsupported
operators are named together, because fixing them one run at a time costs a conversion each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.core.errors import SignalboxError

NO_TRANSLATION = "has no ONNX translation"
_EXPORT_DIRECTLY = "export the original model to ONNX or TorchScript and register that file instead"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """An operator or layer, the first variable it gives, and what about it has no counterpart."""

    operator: str
    variable: str
    reason: str = NO_TRANSLATION

    def __str__(self) -> str:
        return f"operator '{self.operator}' (output '{self.variable}') {self.reason}"


class TranslationRefused(SignalboxError):
    """`operator` and `variable` are the first culprit's, None where no single operator is to blame."""

    def __init__(
        self,
        reason: str,
        *,
        operator: str | None = None,
        variable: str | None = None,
        next_step: str = _EXPORT_DIRECTLY,
        unsupported: Sequence[Unsupported] = (),
    ) -> None:
        self.reason = reason
        self.operator = operator
        self.variable = variable
        self.next_step = next_step
        self.unsupported = tuple(unsupported)
        super().__init__(f"{reason}; {next_step}")

    @classmethod
    def of(cls, unsupported: Sequence[Unsupported]) -> "TranslationRefused":
        """One refusal that names every given operator; `unsupported` must not be empty."""
        first = unsupported[0]
        return cls(
            "; ".join(str(one) for one in unsupported),
            operator=first.operator,
            variable=first.variable,
            unsupported=unsupported,
        )
