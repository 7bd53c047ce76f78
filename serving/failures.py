"""What the log keeps of a failed inference, so that answers need not: class, place, shapes, traceback.

Failures of one cause share a fingerprint: the version, the error's class and where it arose.
"""

import logging
import traceback
from collections.abc import Mapping
from hashlib import sha256

from serving.core.datatypes import Array
from serving.core.errors import ModelFailed, VersionUnresponsive
from serving.pool import LoadedVersion

log = logging.getLogger(__name__)


def report_failure(
    failure: ModelFailed, version: LoadedVersion, inputs: Mapping[str, Array], request_id: str
) -> None:
    """Log what an answer must not show: the error's class, where it arose, and what went in.

    A version that was not even asked is logged once, by its breaker.
    """
    if isinstance(failure, VersionUnresponsive):
        return
    cause = failure.__cause__
    tail = traceback.extract_tb(cause.__traceback__)[-1:] if cause is not None else []
    where = [f"{frame.filename}:{frame.name}" for frame in tail]
    marks = (str(version.ref), type(cause or failure).__name__, *where)
    fingerprint = sha256("\n".join(marks).encode()).hexdigest()[:12]
    shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in inputs.items()}
    frames = "".join(traceback.format_exception(cause)) if cause is not None else ""
    log.error(
        "inference_failed request_id=%s version=%s fingerprint=%s error=%s inputs=%s\n%s",
        request_id,
        version.ref,
        fingerprint,
        failure,
        shapes,
        frames,
    )
