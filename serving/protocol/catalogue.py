"""What the protocol tells about server and models, in its own shapes; HTTP and gRPC both read it here.

Source: Open Inference Protocol v2 and Triton's repository, statistics and configuration extensions.
"""

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version as installed_version
from typing import Any

from serving.core.model import TensorSpec
from serving.fleet.channel import Told
from serving.followed import FollowedModel
from serving.protocol.configuration import Batching, configuration
from serving.protocol.model_stats import model_stats
from serving.readiness import Readiness
from serving.routes import Routes
from serving.telemetry.counters import Statistics

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)


class Catalogue:
    """Reads what others keep. Confined to the event loop's thread."""

    def __init__(
        self,
        routes: Routes,
        models: Mapping[str, FollowedModel],
        readiness: Readiness,
        statistics: Statistics,
        others: Callable[[], Awaitable[list[Told]]],
    ) -> None:
        """`others` asks the server's other workers for their statistics."""
        self._routes = routes
        self._models = models
        self._readiness = readiness
        self._statistics = statistics
        self._others = others

    def waiting_for(self) -> list[str]:
        """What keeps the server from being ready; empty when it is."""
        return self._readiness.waiting_for()

    def server(self) -> dict[str, Any]:
        return {
            "name": "signalbox",
            "version": installed_version("signalbox"),
            "extensions": list(EXTENSIONS),
        }

    def names(self) -> list[str]:
        return self._routes.names()

    def metadata(self, model: str, address: str | None) -> dict[str, Any]:
        """Raises `NotServed`, as all of the following do."""
        version = self._routes.find(model, address).version
        return {
            "name": version.ref.model,
            "versions": self._routes.of(model).versions(),
            "platform": version.model.platform,
            "inputs": [_tensor(spec) for spec in version.model.inputs],
            "outputs": [_tensor(spec) for spec in version.model.outputs],
            "properties": {"version": version.ref.version, "digest": version.provenance.digest},
        }

    def check_ready(self, model: str, address: str | None) -> None:
        self._routes.find(model, address)

    def configuration(self, model: str, address: str | None) -> dict[str, Any]:
        version = self._routes.find(model, address).version
        # Requests are joined while a thread is busy; none is ever made to wait for others.
        batching = Batching(version.joined_rows, 0) if version.joined_rows > 1 else None
        return configuration(version, self._routes.of(model).versions(), batching)

    async def statistics(self, model: str | None, address: str | None) -> dict[str, Any]:
        """Of one version, of all versions of a model, or of all there are; of all workers together."""
        if model is not None and address is not None:
            versions = [self._routes.find(model, address).version]
        else:
            names = [model] if model is not None else self._routes.names()
            versions = [version for name in names for version in self._routes.of(name).all()]
        others = await self._others()
        together = self._statistics.with_others(told["statistics"] for told in others)
        stats = [model_stats(version, together, 1 + len(others)) for version in versions]
        return {"model_stats": stats}

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        entries = []
        for name in sorted(self._models):
            states = _states(self._models[name])
            entries += [
                {"name": name, "version": version, "state": state, "reason": reason}
                for version, (state, reason) in sorted(states.items(), key=lambda item: int(item[0]))
                if state == "READY" or not only_ready
            ]
        return entries


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape}


def _states(model: FollowedModel) -> dict[str, tuple[str, str]]:
    """State and reason by version; what is served is READY even where another alias refused it."""
    states = {r.key.ref.version: ("UNAVAILABLE", r.reason) for r in model.refusals.values()}
    if model.preparing is not None:
        states[model.preparing.key.ref.version] = ("LOADING", f"wanted as {model.preparing.alias}")
    ready = {loaded.ref.version: ("READY", "") for loaded in model.routes().all()}
    return states | ready
