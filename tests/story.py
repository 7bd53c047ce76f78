"""Tests that tell an asynchronous story, run from start to end in a loop of their own."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec

Args = ParamSpec("Args")

_PAUSE_SECONDS = 0.005


def story(test: Callable[Args, Awaitable[None]]) -> Callable[Args, None]:
    """The plain test function for an asynchronous one."""

    @wraps(test)
    def run(*args: Args.args, **kwargs: Args.kwargs) -> None:
        async def tell() -> None:
            await test(*args, **kwargs)

        asyncio.run(tell())

    return run


async def eventually(condition: Callable[[], Awaitable[object] | object], what: str) -> None:
    """Return as soon as `condition` is true; fails naming `what` after 20 s."""
    never = asyncio.Event()
    try:
        async with asyncio.timeout(20):
            while True:
                met = condition()
                if await met if isinstance(met, Awaitable) else met:
                    return
                await _pause(never)
    except TimeoutError:
        raise AssertionError(f"waited in vain: {what}") from None


async def _pause(never: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(never.wait(), _PAUSE_SECONDS)
    except TimeoutError:
        return
