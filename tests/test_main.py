"""Starting the process: what a taken gRPC port means, by who chose it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.core.errors import SignalboxError
from serving.process import start_rpc
from serving.settings import ServingSettings
from serving.tls import TlsFiles
from tests.story import story


class TakenPort:
    """A gRPC server that finds its port in use."""

    def __init__(self, backing: object, *, max_calls: int, is_shared: bool) -> None:
        self.backing, self.max_calls = backing, max_calls

    async def start(self, host: str, port: int, tls: TlsFiles | None) -> int:
        raise SignalboxError(f"port {port} is taken")


RPC = SimpleNamespace(RpcServer=TakenPort)
SERVER: Any = SimpleNamespace(backing=None)


@story
async def test_start_is_refused_when_the_taken_port_was_chosen(tmp_path: Path) -> None:
    """What was asked for must hold."""
    with pytest.raises(SignalboxError, match="port 9999 is taken"):
        await start_rpc(ServingSettings(home=tmp_path, grpc_port=9999), SERVER, RPC)


@story
async def test_grpc_is_left_out_when_only_the_usual_port_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two servers on one machine need no setting for what nobody asked for; the log says so."""
    settings = cast(Any, ServingSettings)(home=tmp_path)
    assert await start_rpc(settings, SERVER, RPC) is None
    assert "grpc_left_out" in caplog.text


@story
async def test_nothing_is_started_when_grpc_is_off(tmp_path: Path) -> None:
    """Port 0."""
    assert await start_rpc(ServingSettings(home=tmp_path, grpc_port=0), SERVER, None) is None
