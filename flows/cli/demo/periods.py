"""Which version had to answer when: noted act by act, read by the verdict over all requests."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from flows.cli.demo.verdict import Period


@dataclass(slots=True)
class Periods:
    """In order of time, of which at most the last is open. Moments are of the traffic's clock."""

    _all: list[Period] = field(default_factory=list)

    def __iter__(self) -> Iterator[Period]:
        return iter(self._all)

    @property
    def last(self) -> Period:
        return self._all[-1]

    def settle(self, version: str, at: float) -> None:
        """From then on nobody but `version` may answer."""
        self.release(at)
        self._all.append(Period(version, at))

    def share(self, version: str, at: float) -> None:
        """From then on `version` may answer beside the one that had to."""
        present = self.last.version
        self.release(at)
        self._all.append(Period(present, at, beside=version))

    def release(self, at: float) -> None:
        """From then on the last version need not answer any more."""
        if self._all and at < self._all[-1].until:
            self._all[-1] = replace(self._all[-1], until=at)
