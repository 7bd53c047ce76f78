"""What every transport of the protocol stands on; made once in the wiring."""

from collections.abc import Callable
from dataclasses import dataclass

from serving.api.access import Access
from serving.api.intake import Intake
from serving.core.health import Status
from serving.inference import Inference
from serving.protocol.catalogue import Catalogue
from serving.protocol.endpoints import Repository


@dataclass(frozen=True, slots=True)
class Backing:
    """`health` is the status of a model, `timeout_seconds` the deadline of a request that names none."""

    access: Access
    intake: Intake
    inference: Inference
    catalogue: Catalogue
    repository: Repository
    health: Callable[[str], Status]
    max_body_bytes: int
    timeout_seconds: float
