"""What is kept of a failed inference, so that answers need not show it: class, place, shapes, traceback.

Failures of one cause share a fingerprint: the version, the error's class and where it arose.
"""

import logging
import traceback
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256

from serving.core.datatypes import Array
from serving.core.errors import ModelFailed, VersionUnresponsive
from serving.pool import LoadedVersion
from serving.store.failures import Cause

log = logging.getLogger(__name__)

# Foreign text in the store and the log: enough to know the cause, not enough to fill either.
_MAX_MESSAGE = 500
_MAX_TRACEBACK = 8000


def report_failure(
    failure: ModelFailed,
    version: LoadedVersion,
    inputs: Mapping[str, Array],
    request_id: str,
    now: datetime,
) -> Cause | None:
    """Log what an answer must not show, and return it to be counted.

    A version that was not even asked is logged once, by its breaker, and None.
    """
    if isinstance(failure, VersionUnresponsive):
        return None
    raised = failure.__cause__
    tail = traceback.extract_tb(raised.__traceback__)[-1:] if raised is not None else []
    where = [f"{frame.filename}:{frame.name}" for frame in tail]
    error = type(raised or failure).__name__
    marks = (str(version.ref), error, *where)
    shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in inputs.items()}
    frames = "".join(traceback.format_exception(raised)) if raised is not None else ""
    cause = Cause(
        fingerprint=sha256("\n".join(marks).encode()).hexdigest()[:12],
        ref=version.ref,
        error=error,
        place=", ".join(where),
        message=str(failure)[:_MAX_MESSAGE],
        inputs=str(shapes)[:_MAX_MESSAGE],
        request_id=request_id,
        traceback=frames[-_MAX_TRACEBACK:],
        times=1,
        first_seen_at=now,
        last_seen_at=now,
    )
    log.error(
        "inference_failed request_id=%s model=%s version=%s fingerprint=%s error_class=%s error=%s "
        "inputs=%s\n%s",
        request_id,
        version.ref.model,
        version.ref.version,
        cause.fingerprint,
        error,
        failure,
        shapes,
        frames,
    )
    return cause
