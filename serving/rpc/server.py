"""The gRPC server: which call goes where, the port it listens on, and how it stops."""

import grpc

from serving.core.errors import SignalboxError
from serving.protocol.backing import Backing
from serving.rpc.calls import Calls
from serving.rpc.door import Call, Context, Door, Twin, fixed_twin, model_twin, refuse, repository_twin
from serving.rpc.generated import health_pb2
from serving.rpc.generated import inference_pb2 as pb
from serving.tls import TlsFiles

_INFERENCE = "inference.GRPCInferenceService"
_MAX_METADATA_BYTES = 32 << 10
_HEALTH = "grpc.health.v1.Health"


class RpcServer:
    """One server on one port."""

    def __init__(self, backing: Backing, *, max_calls: int | None = None, is_shared: bool = False) -> None:
        """`is_shared` says that this is one of several workers, whose parent keeps the port for them."""
        door, calls = Door(backing.access, backing.intake), Calls(backing)
        self._server = grpc.aio.server(
            handlers=(
                grpc.method_handlers_generic_handler(_INFERENCE, _inference_handlers(door, calls)),
                grpc.method_handlers_generic_handler(_HEALTH, _health_handlers(door, calls)),
                _Unknown(),
            ),
            options=(
                ("grpc.max_receive_message_length", backing.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Else a second server on a busy port would take half of its calls without a word.
                ("grpc.so_reuseport", int(is_shared)),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ),
            maximum_concurrent_rpcs=max_calls,
        )

    async def start(self, host: str, port: int, tls: TlsFiles | None = None) -> int:
        """The port it listens on. Raises `SignalboxError` when that is taken."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._bind(place, tls)
        except RuntimeError:
            raise SignalboxError(
                f"gRPC cannot listen on {place}: the port is taken or not allowed; set SIGNALBOX_GRPC_PORT "
                "to another one, or to 0 for no gRPC"
            ) from None
        await self._server.start()
        return bound

    def _bind(self, place: str, tls: TlsFiles | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(place)
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        return self._server.add_secure_port(place, grpc.ssl_server_credentials([pair]))

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, finish those in flight; what is not done by then is cancelled."""
        await self._server.stop(grace_seconds)


def _inference_handlers(door: Door, calls: Calls) -> dict[str, "grpc.RpcMethodHandler[object, object]"]:
    unary: dict[str, tuple[Call, Twin]] = {
        "ServerLive": (calls.server_live, fixed_twin("GET", "/v2/health/live")),
        "ServerReady": (calls.server_ready, fixed_twin("GET", "/v2/health/ready")),
        "ServerMetadata": (calls.server_metadata, fixed_twin("GET", "/v2")),
        "ModelReady": (calls.model_ready, model_twin("GET", "/ready")),
        "ModelMetadata": (calls.model_metadata, model_twin("GET", "")),
        "ModelConfig": (calls.model_config, model_twin("GET", "/config")),
        "ModelStatistics": (calls.model_statistics, model_twin("GET", "/stats")),
        "ModelInfer": (calls.model_infer, model_twin("POST", "/infer")),
        "RepositoryIndex": (calls.repository_index, fixed_twin("POST", "/v2/repository/index")),
        "RepositoryModelLoad": (calls.repository_model_load, repository_twin("load")),
        "RepositoryModelUnload": (calls.repository_model_unload, repository_twin("unload")),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            door.unary(call, twin),
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=getattr(pb, f"{name}Response").SerializeToString,
        )
        for name, (call, twin) in unary.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        door.stream(calls.model_infer, model_twin("POST", "/infer")),
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelStreamInferResponse.SerializeToString,
    )
    return handlers


def _health_handlers(door: Door, calls: Calls) -> dict[str, "grpc.RpcMethodHandler[object, object]"]:
    return {
        "Check": grpc.unary_unary_rpc_method_handler(
            door.unary(calls.health, fixed_twin("GET", "/v2/health/ready")),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
    }


class _Unknown(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # only the stubs are generic
    """Says in words that a call is not offered; without it gRPC answers with its code alone."""

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[object, object] | None":
        async def not_offered(_: object, context: Context) -> None:
            await refuse(
                context,
                grpc.StatusCode.UNIMPLEMENTED,
                f"{details.method} is not offered by this server: it speaks {_INFERENCE} (without shared "
                f"memory, tracing and log settings) and {_HEALTH}/Check",
            )

        return grpc.unary_unary_rpc_method_handler(not_offered)
