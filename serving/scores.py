"""Counts answers against the version they were routed to, and reports one whose answers fail.

A champion answers for all it is asked, a challenger for its part of the split; whoever was asked for by
name is nobody's evidence. Called from the request path, so what hears of it may only schedule.
"""

from collections.abc import Callable, Mapping

from serving.core.clock import Clock
from serving.core.model import Alias, Variant
from serving.followed import FollowedModel
from serving.pool import LoadedVersion
from serving.routes import Route
from serving.telemetry.recorder import Recorder
from serving.watch import Evidence


class Scores:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        on_failing_champion: Callable[[FollowedModel, Evidence], None],
        on_failing_challenger: Callable[[FollowedModel, LoadedVersion, Evidence], None],
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._models = models
        self._on_failing_champion = on_failing_champion
        self._on_failing_challenger = on_failing_challenger
        self._recorder = recorder
        self._clock = clock

    def count(self, route: Route, *, failed: bool) -> None:
        """Note an answer; as evidence only while the version still is what it was routed to as."""
        if route.variant is not Variant.PROBE:
            self._recorder.judged(route.version.ref, route.variant, failed=failed)
        model = self._models.get(route.version.ref.model)
        if model is None:
            return
        if route.variant is Variant.CHAMPION and model.served.get(Alias.CHAMPION) is route.version:
            self._count_champion(model, failed=failed)
        elif route.is_divided and model.served.get(Alias.CHALLENGER) is route.version:
            self._count_challenger(model, route.version, failed=failed)

    def _count_champion(self, model: FollowedModel, *, failed: bool) -> None:
        now = self._clock.monotonic()
        model.window.add(now, failed=failed)
        if failed and (evidence := model.window.evidence(now)).is_failing:
            self._on_failing_champion(model, evidence)

    def _count_challenger(self, model: FollowedModel, challenger: LoadedVersion, *, failed: bool) -> None:
        now, window = self._clock.monotonic(), model.trial_of(challenger).window
        window.add(now, failed=failed)
        if failed and (evidence := window.evidence(now)).is_failing:
            self._on_failing_challenger(model, challenger, evidence)
