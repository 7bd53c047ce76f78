"""Processes of one server talk: a question is answered, or the asker goes on without."""

from pathlib import Path

from serving.fleet.channel import Channel, Told, ask
from serving.fleet.siblings import Siblings, socket_name
from tests.story import story


async def echo(asked: Told) -> Told:
    return {"echo": asked}


async def failing(_: Told) -> Told:
    raise ValueError("it cannot")


async def opened(folder: Path, slot: int) -> Channel:
    channel = Channel(folder / socket_name(slot, 100 + slot))
    channel.answer("echo", echo)
    channel.answer("fail", failing)
    await channel.open()
    return channel


@story
async def test_question_is_answered_when_somebody_listens(tmp_path: Path) -> None:
    """Details go there and back, however long; what fails is told as a problem."""
    channel = await opened(tmp_path, 1)
    path = tmp_path / socket_name(1, 101)
    text = "long " * 100_000
    assert await ask(path, "echo", seconds=5, text=text) == {"echo": {"text": text}}
    assert await ask(path, "fail", seconds=5) == {"problem": "it cannot"}
    assert await ask(path, "unheard of", seconds=5) == {"problem": "not known here"}
    await channel.close()


@story
async def test_question_has_no_answer_when_nobody_listens(tmp_path: Path) -> None:
    """A socket that is gone, and one whose process died, are the same to who asks."""
    channel = await opened(tmp_path, 1)
    await channel.close()
    assert await ask(tmp_path / socket_name(1, 101), "echo", seconds=5) is None
    (tmp_path / "worker-2-102.sock").touch()
    assert await ask(tmp_path / "worker-2-102.sock", "echo", seconds=5) is None


@story
async def test_siblings_are_all_others_when_asked(tmp_path: Path) -> None:
    """Not oneself; who cannot do what was asked is named, and who ended is not."""
    channels = [await opened(tmp_path, slot) for slot in (1, 2, 3)]
    siblings = Siblings(tmp_path / socket_name(1, 101), expected=2)
    assert len(await siblings.ask("echo")) == 2
    problems = await siblings.problems("fail", seconds=5)
    assert problems == ["worker-2-102: it cannot", "worker-3-103: it cannot"]
    assert siblings.waiting_for() == ["2 more of the server's workers to start"]
    await channels[2].close()
    assert await siblings.problems("echo", seconds=5) == []
    for channel in channels[:2]:
        await channel.close()


@story
async def test_only_worker_waits_for_nobody_when_asked() -> None:
    """A server of one worker."""
    alone = Siblings(None, expected=0)
    assert await alone.ask("echo") == []
    assert alone.waiting_for() == []
    await alone.run()
