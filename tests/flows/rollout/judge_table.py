"""The judge's error rates by effect size, with fixed seeds: `python -m tests.flows.rollout.judge_table`.

One look a minute for half an hour: a champion at 20 requests a second less the canary's one, which gives
2 % errors, beside canaries that give as many or more.
"""

import sys
from dataclasses import dataclass

import numpy as np

from flows.rollout.sequential import Count, compare

SEED = 20_260_101
CHAMPION_RATIO = 0.02
CANARY_RATIOS = (0.02, 0.03, 0.05, 0.10)
LOOKS = 30
CANARY_PER_LOOK, CHAMPION_PER_LOOK = 60, 1140
TAU, ALPHA = 0.02, 0.05
STAGE_PERCENTS = (5, 25, 50)


@dataclass(frozen=True, slots=True)
class Row:
    """`stopped_ratio` of the runs were aborted, half of these by minute `median_minute`."""

    canary_ratio: float
    stopped_ratio: float
    median_minute: float | None
    latest_minute: int | None


def measured(canary_ratio: float, runs: int, looks: int = LOOKS, seed: int = SEED) -> Row:
    """Many rollouts of one effect size."""
    chance = np.random.default_rng([seed, round(canary_ratio * 1000)])
    minutes = [
        minute
        for _ in range(runs)
        if (minute := _stopped(chance, canary_ratio, looks, CANARY_PER_LOOK, CHAMPION_PER_LOOK)) is not None
    ]
    return Row(
        canary_ratio,
        len(minutes) / runs,
        float(np.median(minutes)) if minutes else None,
        max(minutes, default=None),
    )


def aborted_over_stages(runs: int, looks: int = 10, seed: int = SEED) -> float:
    """The share of equal versions that any of three stages of ten minutes each aborts, at 20 a second."""
    chance = np.random.default_rng([seed, 0])
    aborted = 0
    for _ in range(runs):
        shares = [1200 * percent // 100 for percent in STAGE_PERCENTS]
        aborted += any(
            _stopped(chance, CHAMPION_RATIO, looks, share, 1200 - share) is not None for share in shares
        )
    return aborted / runs


def _stopped(
    chance: np.random.Generator, canary_ratio: float, looks: int, canary_trials: int, champion_trials: int
) -> int | None:
    champion = chance.binomial(champion_trials, CHAMPION_RATIO, looks).cumsum()
    canary = chance.binomial(canary_trials, canary_ratio, looks).cumsum()
    for look in range(looks):
        one = Count(int(champion[look]), champion_trials * (look + 1))
        two = Count(int(canary[look]), canary_trials * (look + 1))
        if compare(one, two, TAU).is_worse(ALPHA):
            return look + 1
    return None


def main(runs: int = 1000) -> None:
    print(f"{runs} runs, seed {SEED}, champion {CHAMPION_RATIO:.0%}, canary 1 request/s, {LOOKS} looks")
    print("| canary errors | aborted | median minute | latest |\n|---|---|---|---|")
    for ratio in CANARY_RATIOS:
        row = measured(ratio, runs)
        median = "" if row.median_minute is None else f"{row.median_minute:.0f}"
        print(f"| {ratio:.0%} | {row.stopped_ratio:.1%} | {median} | {row.latest_minute or ''} |")
    print(f"equal versions aborted in any of the stages 5, 25, 50 %: {aborted_over_stages(runs):.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
