"""Whether a candidate keeps the contract that the champion's callers rely on, as validation asks it.

The rules are in `serving.core.contract`, because a rollback is held to them too.
"""

from collections.abc import Mapping, Sequence

from flows.catalog.facts import Loaded
from serving.core.contract import Compatibility, Contract
from serving.core.contract import compatibility as of_contracts
from serving.core.datatypes import Array
from serving.core.model import TensorSpec
from serving.formats.selftest import output_problem

__all__ = ["Compatibility", "compatibility", "off_contract"]


def compatibility(candidate: Loaded, champion: Loaded) -> Compatibility:
    """What the declared specs of the two versions say about replacing one by the other."""
    return of_contracts(
        Contract(candidate.inputs, candidate.outputs), Contract(champion.inputs, champion.outputs)
    )


def off_contract(champion_outputs: Sequence[TensorSpec], outputs: Mapping[str, Array]) -> str | None:
    """What a real answer lacks of the outputs the champion declares; more outputs are welcome."""
    names = {spec.name for spec in champion_outputs}
    return output_problem(champion_outputs, {name: outputs[name] for name in outputs if name in names})
