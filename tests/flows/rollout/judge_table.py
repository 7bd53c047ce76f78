"""The judge's error rates by effect size, with fixed seeds: `python -m tests.flows.rollout.judge_table`.

One look a minute for half an hour: a champion at 20 requests a second less the canary's one, which gives
2 % errors, beside canaries that give as many or more.
"""

import sys
from dataclasses import dataclass

import numpy as np

from flows.rollout.sequential import Count, is_worse

SEED = 20_260_101
CHAMPION_RATIO = 0.02
CANARY_RATIOS = (0.02, 0.03, 0.05, 0.10)
LOOKS = 30
_PER_LOOK = (1140, 60)
RARE_RATIOS = (0.0005, 0.001, 0.005, 0.01)
TAU, ALPHA = 0.02, 0.05
STAGE_PERCENTS = (5, 25, 50)


@dataclass(frozen=True, slots=True)
class Row:
    """`stopped_ratio` of the runs were aborted, half of these by minute `median_minute`."""

    canary_ratio: float
    stopped_ratio: float
    median_minute: float | None
    latest_minute: int | None


def measured(canary_ratio: float, runs: int, *, champion_ratio: float = CHAMPION_RATIO) -> Row:
    """Many rollouts of one effect size."""
    chance = np.random.default_rng([SEED, round(canary_ratio * 10_000)])
    minutes = [
        minute
        for _ in range(runs)
        if (minute := _stopped(chance, (champion_ratio, canary_ratio), LOOKS, _PER_LOOK)) is not None
    ]
    return Row(
        canary_ratio,
        len(minutes) / runs,
        float(np.median(minutes)) if minutes else None,
        max(minutes, default=None),
    )


def aborted_over_stages(runs: int, looks: int = 10) -> float:
    """The share of equal versions that any of three stages of ten minutes each aborts, at 20 a second."""
    chance = np.random.default_rng([SEED, 0])
    equal = (CHAMPION_RATIO, CHAMPION_RATIO)
    shares = [1200 * percent // 100 for percent in STAGE_PERCENTS]
    aborted = sum(
        any(_stopped(chance, equal, looks, (1200 - share, share)) is not None for share in shares)
        for _ in range(runs)
    )
    return aborted / runs


def _stopped(
    chance: np.random.Generator, ratios: tuple[float, float], looks: int, per_look: tuple[int, int]
) -> int | None:
    """At which look the canary is aborted; ratios and requests per look of champion and canary."""
    hits = [
        chance.binomial(trials, ratio, looks).cumsum() for ratio, trials in zip(ratios, per_look, strict=True)
    ]
    for look in range(looks):
        one, two = (
            Count(int(hit[look]), trials * (look + 1)) for hit, trials in zip(hits, per_look, strict=True)
        )
        if is_worse(one, two, TAU, ALPHA):
            return look + 1
    return None


def main(runs: int = 1000) -> None:
    print(f"{runs} runs, seed {SEED}, champion {CHAMPION_RATIO:.0%}, canary 1 request/s, {LOOKS} looks")
    print("| canary errors | aborted | median minute | latest |\n|---|---|---|---|")
    for ratio in CANARY_RATIOS:
        row = measured(ratio, runs)
        median = "" if row.median_minute is None else f"{row.median_minute:.0f}"
        print(f"| {ratio:.0%} | {row.stopped_ratio:.1%} | {median} | {row.latest_minute or ''} |")
    for ratio in RARE_RATIOS:
        row = measured(ratio, runs, champion_ratio=ratio)
        print(f"equal versions with {ratio:.2%} errors: {row.stopped_ratio:.1%} aborted")
    print(f"equal versions aborted in any of the stages 5, 25, 50 %: {aborted_over_stages(runs):.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
