"""The other workers, as one of them sees them: real sockets, answered in this process."""

import asyncio
from pathlib import Path

from serving.fleet.channel import Channel, Told
from serving.fleet.siblings import Siblings, socket_name
from tests.story import eventually, story


@story
async def test_siblings_tell_whom_they_let_in_when_they_report(tmp_path: Path) -> None:
    """A limit is the whole server's: each worker hears the totals of the others, by worker."""

    async def report(_: Told) -> Told:
        return {"waiting_for": [], "admitted": {"key:1": 7}}

    other = Channel(tmp_path / socket_name(2, 22))
    other.answer("report", report)
    await other.open()
    heard: list[dict[str, dict[str, int]]] = []
    siblings = Siblings(tmp_path / socket_name(1, 11), expected=1)
    siblings.tell(heard.append)
    loop = asyncio.create_task(siblings.run())
    try:
        await eventually(lambda: {"worker-2-22": {"key:1": 7}} in heard, "the sibling is heard")
        assert siblings.waiting_for() == []
    finally:
        loop.cancel()
        await other.close()


@story
async def test_siblings_hold_nobody_back_when_one_ends_after_all_were_ready(tmp_path: Path) -> None:
    """Nobody asked while all were: the first question comes when one is gone, and the server is ready."""
    wait, asked = ["champion of m to load"], 0

    async def report(_: Told) -> Told:
        nonlocal asked
        asked += 1
        return {"waiting_for": list(wait)}

    other = Channel(tmp_path / socket_name(2, 22))
    other.answer("report", report)
    await other.open()
    siblings = Siblings(tmp_path / socket_name(1, 11), expected=1)
    loop = asyncio.create_task(siblings.run())
    try:
        await eventually(lambda: asked >= 2, "the sibling is looked at")
        assert siblings.waiting_for() == wait
        wait.clear()
        heard = asked
        await eventually(lambda: asked >= heard + 2, "the sibling is looked at again")
        await other.close()
        await eventually(lambda: not siblings.reports(), "the sibling is missed")
        assert siblings.waiting_for() == []
    finally:
        loop.cancel()
