"""What every transport of the protocol stands on; made once in the wiring."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.api.access import Access
from serving.api.intake import Intake
from serving.core.health import Status
from serving.core.model import VersionRef
from serving.inference import Inference
from serving.protocol.catalogue import Catalogue
from serving.protocol.endpoints import Repository


@dataclass(frozen=True, slots=True)
class Backing:
    """`health` is the status of a model, `analytics` the kept figures of a version, `timeout_seconds` the
    deadline of a request that names none.
    """

    access: Access
    intake: Intake
    inference: Inference
    catalogue: Catalogue
    repository: Repository
    health: Callable[[str], Status]
    analytics: Callable[[VersionRef], dict[str, float | None]]
    max_body_bytes: int
    timeout_seconds: float
