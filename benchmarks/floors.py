"""The least a server could do: parse, run, answer, with nothing around it.

    python -m benchmarks.floors a|b MODEL.onnx PORT

Floor A is a bare ASGI function under uvicorn, uvloop and httptools; floor B the same in a bare asyncio
protocol on httptools. Both answer the same JSON body on any path.
"""

import asyncio
import sys
from typing import Any, cast

import httptools
import numpy as np
import onnxruntime
import orjson
import uvicorn
import uvloop


class Model:
    """One session with one thread, asked inline."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def answer(self, body: bytes) -> bytes:
        if not body:  # whoever waits for the server to be there
            return b"{}"
        given = orjson.loads(body)["inputs"][0]
        array = np.asarray(given["data"], np.float32).reshape(given["shape"])
        [result] = self._session.run([self._output], {self._input: array})
        output = {"name": self._output, "datatype": "FP32", "shape": result.shape, "data": result.ravel()}
        told = {"model_name": "digits", "model_version": "1", "outputs": [output]}
        return orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)


def asgi(model: Model) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = model.answer(body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


class Bare(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and nothing else."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind does not derive from it

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer, self._body = self._model.answer(self._body), b""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        self._transport.write(head.encode() + answer)


async def bare(model: Model, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Bare(model), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    which, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    model = Model(path)
    if which == "b":
        uvloop.run(bare(model, port))
    else:
        uvicorn.run(
            asgi(model),
            host="127.0.0.1",
            port=port,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
            lifespan="off",
        )


if __name__ == "__main__":
    main()
