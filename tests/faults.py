"""The faults this system must survive, and the count of those it did: `recovered N of M`.

A test that injects a fault is marked `fault("F5")`. Only a test that passed has recovered: one that
was skipped, or never ended, has not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "F1": "MLflow down, slow, answering errors or garbage",
        "F2": "Prefect server or worker down",
        "F3": "state store locked, unreachable or read-only",
        "F4": "disk full for the inference log",
        "F5": "serving killed under load",
        "F6": "serving told to stop under load",
        "F7": "promotion killed after one of its durable writes",
        "F8": "two promotions of one model at once",
        "F9": "alias moved by hand in the middle of a rollout",
        "F10": "webhook lost, duplicated, reordered, forged or replayed",
        "F11": "artifact deleted, truncated, changed or of the wrong format",
        "F12": "model that raises, hangs, takes all memory or answers outside its declaration",
        "F13": "challenger that is slower, fails more or answers differently",
        "F14": "no traffic or no labels during a stage",
        "F15": "clock stepped back or forward",
        "F16": "notification refused, failing or of unknown outcome",
        "F17": "process killed between alert and notification",
        "F18": "drift input that is empty, partial or not finite",
        "F19": "request that is malformed, oversized, slow or of the wrong tensors",
        "F20": "more models than the memory budget, all requested at once",
        "F21": "state database corrupt or half migrated",
        "F22": "restore point whose version was deleted",
        "F23": "champion alias or model deleted, registry emptied",
        "F24": "serving restarted while the registry still names a version it left",
        "F25": "two versions beyond the memory budget during a swap",
        "F26": "challenger refused while everybody asks for its promotion",
    }
)


def fault_names(arguments: Iterable[object]) -> tuple[str, ...]:
    """The faults a mark names. Raises ValueError for one that is not in the list."""
    names = tuple(str(argument) for argument in arguments)
    if not names or not FAULTS.keys() >= set(names):
        raise ValueError(f"fault{names} is not one of {', '.join(FAULTS)}")
    return names


@dataclass(slots=True)
class Tally:
    """Injected faults of one test run, by test."""

    _faults: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _passed: dict[str, bool] = field(default_factory=dict)

    def expect(self, test: str, faults: tuple[str, ...]) -> None:
        self._faults[test] = faults

    def note(self, test: str, *, is_call: bool, passed: bool) -> None:
        """One phase of a test ended; the call decides, and set-up and tear-down can only spoil it."""
        if test in self._faults and (is_call or not passed):
            self._passed[test] = passed and self._passed.get(test, True)

    @property
    def injected(self) -> int:
        return len(self._faults)

    @property
    def recovered(self) -> int:
        return sum(self._passed.get(test, False) for test in self._faults)

    @property
    def is_complete(self) -> bool:
        return self.recovered == self.injected

    def lines(self) -> list[str]:
        """One line per fault: how many of its injections were recovered from."""
        told = []
        for name, title in FAULTS.items():
            tests = [test for test, faults in self._faults.items() if name in faults]
            good = sum(self._passed.get(test, False) for test in tests)
            told += [f"{name:<4} {good} of {len(tests)}  {title}"] if tests else []
        return told

    def __str__(self) -> str:
        return f"recovered {self.recovered} of {self.injected}"
