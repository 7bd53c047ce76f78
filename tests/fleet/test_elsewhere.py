"""What other workers hold and counted: the sums by version."""

from serving.core.model import VersionRef
from serving.fleet.elsewhere import Elsewhere, elsewhere, told_of
from serving.telemetry.metrics import Tally

REF = VersionRef("digits", "1")


def test_sums_are_told_when_several_workers_answer() -> None:
    """A version in memory anywhere counts as such."""
    told = {"versions": told_of([], {REF: Tally(10, 2)})}
    awake = {"versions": [told["versions"][0] | {"is_awake": True, "cost_bytes": 7}]}
    assert elsewhere([told, awake, {}]) == {REF: Elsewhere(Tally(20, 4), 7, is_awake=True)}
