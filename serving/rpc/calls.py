"""The calls of `GRPCInferenceService`, each what its REST twin is: the same core, other messages.

Nothing here knows keys or statuses; errors are raised and become statuses in `serving.rpc.door`.
"""

import time
from dataclasses import dataclass, field
from uuid import uuid4

from google.protobuf.json_format import ParseDict

from serving.accounts import Answer
from serving.core.errors import NotServed
from serving.protocol.answer import answer_parameters
from serving.protocol.backing import Backing
from serving.protocol.deadline import timeout_seconds
from serving.protocol.repository import named_version, wanted_version
from serving.rpc.generated import health_pb2
from serving.rpc.generated import inference_pb2 as pb
from serving.rpc.messages import parameter_values, read_request, write_answer

_SERVICES = ("", "inference.GRPCInferenceService", "grpc.health.v1.Health")


@dataclass(slots=True)
class Caller:
    """Who calls: name for the audit trail, id of the request, and the moment it may last until.

    `route_key` decides whose part of a split it is; `metadata` is what the answer tells beside its message.
    """

    actor: str
    request_id: str = field(default_factory=lambda: uuid4().hex)
    remaining_seconds: float | None = None
    route_key: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Calls:
    """Confined to the event loop's thread."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._catalogue = backing.catalogue

    async def server_live(self, _: pb.ServerLiveRequest, caller: Caller) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _: pb.ServerReadyRequest, caller: Caller) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._catalogue.waiting_for())

    async def model_ready(self, request: pb.ModelReadyRequest, caller: Caller) -> pb.ModelReadyResponse:
        """What does not exist is not ready, as Triton has it."""
        try:
            self._catalogue.check_ready(request.name, request.version or None)
        except NotServed:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def server_metadata(self, _: pb.ServerMetadataRequest, caller: Caller) -> pb.ServerMetadataResponse:
        return ParseDict(self._catalogue.server(), pb.ServerMetadataResponse())

    async def model_metadata(
        self, request: pb.ModelMetadataRequest, caller: Caller
    ) -> pb.ModelMetadataResponse:
        told = self._catalogue.metadata(request.name, request.version or None)
        return ParseDict(told, pb.ModelMetadataResponse())

    async def model_config(self, request: pb.ModelConfigRequest, caller: Caller) -> pb.ModelConfigResponse:
        told = self._catalogue.configuration(request.name, request.version or None)
        return ParseDict({"config": told}, pb.ModelConfigResponse())

    async def model_statistics(
        self, request: pb.ModelStatisticsRequest, caller: Caller
    ) -> pb.ModelStatisticsResponse:
        told = await self._catalogue.statistics(request.name or None, request.version or None)
        return ParseDict(told, pb.ModelStatisticsResponse())

    async def repository_index(
        self, request: pb.RepositoryIndexRequest, caller: Caller
    ) -> pb.RepositoryIndexResponse:
        told = {"models": self._catalogue.index(only_ready=request.ready)}
        return ParseDict(told, pb.RepositoryIndexResponse())

    async def repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, caller: Caller
    ) -> pb.RepositoryModelLoadResponse:
        model, version = named_version(request.model_name)
        version = wanted_version(parameter_values(request.parameters), version, known=())
        await self._backing.repository.load(model, version, caller.actor)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, caller: Caller
    ) -> pb.RepositoryModelUnloadResponse:
        model, version = named_version(request.model_name)
        parameters = parameter_values(request.parameters)
        version = wanted_version(parameters, version, known=("unload_dependents",))
        await self._backing.repository.unload(model, version, caller.actor)
        return pb.RepositoryModelUnloadResponse()

    async def model_infer(self, message: pb.ModelInferRequest, caller: Caller) -> pb.ModelInferResponse:
        arrived = time.monotonic()
        backing = self._backing
        request = read_request(message)
        address = message.model_version or None
        route = backing.inference.route(message.model_name, address, caller.route_key)
        allowed = timeout_seconds(request.parameters, None, backing.timeout_seconds)
        if caller.remaining_seconds is not None:
            allowed = min(allowed, caller.remaining_seconds)
        answer = await backing.inference.infer(
            route,
            request.fit,
            deadline=arrived + allowed,
            request_id=caller.request_id,
            finite=request.must_be_finite,
        )
        began_ns = time.perf_counter_ns()
        parameters = answer_parameters(answer.variant, answer.alias, backing.health(message.model_name))
        if request.wants_analytics:
            parameters |= backing.analytics(answer.version.ref)
        response = write_answer(message, request, answer, parameters)
        caller.metadata |= _told(answer)
        backing.inference.rendered(answer, began_ns)
        return response

    async def health(
        self, request: health_pb2.HealthCheckRequest, caller: Caller
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in _SERVICES:
            known = [service for service in _SERVICES if service]
            raise NotServed(f"service '{request.service[:80]}' is not offered here", exists=known)
        statuses = health_pb2.HealthCheckResponse
        is_ready = not self._catalogue.waiting_for()
        return statuses(status=statuses.SERVING if is_ready else statuses.NOT_SERVING)


def _told(answer: Answer) -> dict[str, str]:
    return {"x-model-version": answer.version.ref.version, "x-model-variant": answer.variant}
