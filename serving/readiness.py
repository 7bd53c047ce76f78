"""Whether this server should get traffic, and if not, what it waits for."""

from collections.abc import Callable, Mapping

from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.follower import Follower


class Readiness:
    """Not ready before the first state is known, ready after, not ready while draining.

    Once ready, a background load or an outage of the registry never takes it back.
    """

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        follower: Follower,
        others: Callable[[], list[str]] = list,
    ) -> None:
        """`others` says what other workers of this server wait for: it is ready when all of them are."""
        self._models = models
        self._follower = follower
        self._others = others
        self._was_ready = False
        self.is_draining = False
        self.is_reported = False  # the store heard of this worker as it serves now, or could not be told

    def waiting_for(self) -> list[str]:
        """What is missing, in words; empty when ready."""
        if self.is_draining:
            return ["the server is shutting down"]
        if self._was_ready:
            return []
        missing = self.own_wait() or self._others()
        self._was_ready = not missing
        return missing

    def own_wait(self) -> list[str]:
        """What this process alone waits for."""
        if self.is_draining:
            return ["the server is shutting down"]
        return self.unserved() or ([] if self.is_reported else ["this worker's first report to the store"])

    def unserved(self) -> list[str]:
        """What of the wanted state is not served yet."""
        if self._follower.registry_read_at is None:
            if any(model.served for model in self._models.values()):
                return []
            return [f"the registry: {self._follower.registry_problem}"]
        return [
            f"champion of {model.name} to load"
            for model in self._models.values()
            if model.is_wanted and not model.is_answering and Alias.CHAMPION not in model.refusals
        ]
