"""A gRPC line to a station: a real server on a port of its own, and every call by its name."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from serving.rpc.generated import health_pb2
from serving.rpc.generated import inference_pb2 as pb
from serving.rpc.server import RpcServer
from tests.homes import KEY
from tests.station import Station

ADMIN = (("x-api-key", KEY),)
Metadata = tuple[tuple[str, str], ...]


class Line:
    """Calls over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def bare(self, method: str) -> Any:
        """A method by its whole path, that sends and gives bytes."""
        channel: Any = self.channel
        return channel.unary_unary(method)

    async def call(
        self, call: str, /, metadata: Metadata = (), timeout: float | None = 20.0, **fields: Any
    ) -> Any:
        """The answer of a call by the name of its method, with a message of these fields."""
        return await self.send(call, getattr(pb, f"{call}Request")(**fields), metadata, timeout)

    async def send(
        self, name: str, message: Any, metadata: Metadata = (), timeout: float | None = 20.0
    ) -> Any:
        return await self.started(name, message, metadata, timeout)

    def started(self, name: str, message: Any, metadata: Metadata = (), timeout: float | None = 20.0) -> Any:
        """The call itself, which can be cancelled and knows its trailing metadata."""
        method = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=getattr(pb, f"{name}Response").FromString,
        )
        return method(message, timeout=timeout, metadata=metadata)

    async def stream(
        self, messages: Iterable[pb.ModelInferRequest], metadata: Metadata = ()
    ) -> list[pb.ModelStreamInferResponse]:
        method = self.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        return [answer async for answer in method(iter(messages), timeout=20.0, metadata=metadata)]

    async def health(self, service: str = "") -> int:
        method = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await method(health_pb2.HealthCheckRequest(service=service), timeout=20.0)
        return int(answer.status)

    async def refused(self, call: str, /, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Status and sentence of a call that must be refused."""
        try:
            answer = await self.call(call, **fields)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError(f"{call} was not refused: {answer}")


@asynccontextmanager
async def line_to(server: Station) -> AsyncIterator[Line]:
    rpc = RpcServer(server.server.backing)
    port = await rpc.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=(("grpc.max_receive_message_length", -1),)
        ) as channel:
            yield Line(channel)
    finally:
        await rpc.stop(1.0)
