"""gzip and deflate of bodies: unpacked within the limit, packed where the caller asks for it."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.encoding import unpacked, wanted_encoding
from serving.core.errors import BodyTooLarge, InvalidRequest, UnsupportedContent
from tests.desk import Desk, client, open_desk
from tests.story import story
from tests.versions import gives, loaded

PATH = "/v2/models/digits/infer"
REQUEST = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
LIMIT = 1000
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = open_desk(tmp_path)
    desk.install(loaded("2"))
    return desk


@given(st.binary(max_size=LIMIT + 20), st.sampled_from(sorted(PACK)))
def test_body_is_what_was_packed_or_refused(body: bytes, encoding: str) -> None:
    """To the byte, up to the limit and not beyond."""
    if len(body) <= LIMIT:
        assert unpacked(PACK[encoding](body), encoding, LIMIT) == body
    else:
        with pytest.raises(BodyTooLarge):
            unpacked(PACK[encoding](body), encoding, LIMIT)


def test_gzip_body_may_have_several_members() -> None:
    """As `cat a.gz b.gz` makes it; the limit is of all together."""
    body = gzip.compress(b"a" * 600) + gzip.compress(b"b" * 400)
    assert unpacked(body, "GZIP", LIMIT) == b"a" * 600 + b"b" * 400
    with pytest.raises(BodyTooLarge):
        unpacked(body + gzip.compress(b"c"), "gzip", LIMIT)


@pytest.mark.parametrize("encoding", sorted(PACK))
def test_bomb_is_refused_before_it_has_grown(encoding: str) -> None:
    """A hundred megabytes behind a hundred kilobytes cost a kilobyte."""
    bomb = PACK[encoding](b"\0" * (100 << 20))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        unpacked(bomb, encoding, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("encoding", sorted(PACK))
@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-5], lambda b: b"x" + b, lambda b: b"", lambda b: b + b"junk"]
)
def test_body_is_refused_when_it_is_not_what_it_says(encoding: str, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, something else, nothing, or followed by something."""
    with pytest.raises(InvalidRequest):
        unpacked(spoil(PACK[encoding](b"body")), encoding, LIMIT)


def test_unknown_encoding_is_named_with_the_known_ones() -> None:
    """415, not a guess."""
    with pytest.raises(UnsupportedContent, match="'br' is not read here; known are gzip, deflate"):
        unpacked(b"", "br", LIMIT)


@pytest.mark.parametrize(
    ("accepted", "size_bytes", "encoding"),
    [
        (None, 5000, None),
        ("gzip", 1023, None),
        ("gzip", 1024, "gzip"),
        ("deflate", 5000, "deflate"),
        ("deflate, gzip;q=0.5", 5000, "gzip"),
        ("gzip; q=0, deflate", 5000, "deflate"),
        ("GZip", 5000, "gzip"),
        ("br, zstd", 5000, None),
        ("identity", 5000, None),
        ("", 5000, None),
    ],
)
def test_answer_is_packed_when_it_is_asked_for_and_worth_it(
    accepted: str | None, size_bytes: int, encoding: str | None
) -> None:
    """By the header, from a kilobyte on."""
    assert wanted_encoding(accepted, size_bytes) == encoding


@pytest.mark.parametrize("encoding", sorted(PACK))
@pytest.mark.parametrize("rows", [100, 20_000])
@story
async def test_infer_reads_and_gives_packed_bodies(desk: Desk, encoding: str, rows: int) -> None:
    """Small ones at once, large ones in a thread; the JSON length counts unpacked bytes."""
    array = np.random.default_rng(1).normal(size=(rows, 3)).astype(np.float32)
    desk.install(loaded("2", gives(array)))
    tensor = {"name": "x", "shape": [rows, 3], "datatype": "FP32"}
    request = {
        "inputs": [tensor | {"parameters": {"binary_data_size": array.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    head = orjson.dumps(request)
    headers = {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Encoding": encoding,
        "Accept-Encoding": encoding,
    }
    async with client(desk) as http:
        answer = await http.post(PATH, content=PACK[encoding](head + array.tobytes()), headers=headers)
    assert (answer.status_code, answer.headers.get("content-encoding")) == (200, encoding)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == array.tobytes()


@story
async def test_other_endpoints_read_packed_bodies_too(desk: Desk) -> None:
    """Through the same door, with the same limit."""
    packed = gzip.compress(b"x" * 2000)
    async with client(desk, max_body_bytes=1500) as http:
        answer = await http.post("/v2/repository/index", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body is larger than the limit of 1500 bytes"}
