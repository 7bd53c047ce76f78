"""What this process takes of the machine, measured once a second for `/metrics`."""

import asyncio

import psutil

from serving.memory import Memory
from serving.telemetry.metrics import Metrics

_INTERVAL_SECONDS = 1.0


class Usage:
    def __init__(self, memory: Memory, metrics: Metrics) -> None:
        self._memory = memory
        self._metrics = metrics
        self._process = psutil.Process()

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self._metrics.resident_bytes.set(self._process.memory_info().rss)
            self._metrics.model_bytes.set(self._memory.held_bytes())
            await asyncio.sleep(_INTERVAL_SECONDS)
