"""Calls whose caller is gone or out of time are not computed."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from serving.api.intake import Intake
from serving.core.datatypes import Array
from serving.core.health import Status
from serving.protocol.backing import Backing
from serving.rpc.generated import inference_pb2 as pb
from serving.rpc.server import RpcServer
from tests.desk import Desk, Hangs, open_access, open_desk
from tests.rpc.line import Line
from tests.story import eventually, story
from tests.versions import loaded

THREADS = 2
ROW = np.array([[1.0, 2.0, 3.0]], np.float32)
REQUEST = pb.ModelInferRequest(
    model_name="digits",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])],
    raw_input_contents=[ROW.tobytes()],
)


class Counting(Hangs):
    """A model that hangs until it is let go, and counts who entered."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = 0

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.entered += 1
        return super().__call__(inputs)


@pytest.fixture
def hangs() -> Iterator[Counting]:
    hangs = Counting()
    yield hangs
    hangs.free.set()


@asynccontextmanager
async def line_to(desk: Desk) -> AsyncIterator[Line]:
    access = open_access()
    nothing = cast(Any, None)
    backing = Backing(
        access,
        Intake(1 << 30),
        desk.inference,
        nothing,
        nothing,
        lambda _: Status.HEALTHY,
        lambda _: {},
        1 << 20,
        20.0,
    )
    rpc = RpcServer(backing)
    port = await rpc.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Line(channel)
    finally:
        await rpc.stop(1.0)


@story
async def test_call_is_not_computed_when_its_caller_hung_up_before_its_turn(
    tmp_path: Path, hangs: Counting
) -> None:
    """Two calls take both threads of the version, the third waits and is cancelled."""
    desk = open_desk(tmp_path)
    version = loaded("2", hangs)
    desk.install(version)
    async with line_to(desk) as line:
        first = [line.started("ModelInfer", REQUEST) for _ in range(THREADS)]
        waiting = [asyncio.ensure_future(call) for call in first]
        await eventually(lambda: hangs.entered == THREADS, "both threads are taken")
        third = line.started("ModelInfer", REQUEST)
        hopeless = asyncio.ensure_future(third)
        await eventually(lambda: version.uses == THREADS + 1, "the third call waits for its turn")
        third.cancel()
        await eventually(lambda: version.uses == THREADS, "the third call is forgotten")
        assert hopeless.cancelled() or hopeless.done()
        hangs.free.set()
        await asyncio.gather(*waiting)
        assert hangs.entered == THREADS
    assert desk.counted == (THREADS, 0)


@story
async def test_call_ends_at_the_callers_deadline(tmp_path: Path, hangs: Counting) -> None:
    """Long before the server's own, and what had not begun never does."""
    desk = open_desk(tmp_path)
    version = loaded("2", hangs)
    desk.install(version)
    async with line_to(desk) as line:
        calls = [line.started("ModelInfer", REQUEST, timeout=0.3) for _ in range(THREADS + 1)]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: version.uses == THREADS, "the third call is forgotten")
        hangs.free.set()
        await eventually(lambda: version.uses == 0, "the model returned")
        assert hangs.entered == THREADS
    assert desk.counted == (0, 0)
