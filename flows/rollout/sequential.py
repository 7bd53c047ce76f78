"""Tests of a difference that may be looked at as often as one likes: pure arithmetic on counts.

A fixed-level test that is repeated at every look aborts 20 to 60 % of equal versions; this one keeps its
level whenever one stops. Source: Johari, Pekelis and Walsh, "Always Valid Inference: Bringing Sequential
Analysis to A/B Testing", arXiv:1512.04922, section 4 (the mixture sequential probability ratio test).
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt

from scipy.special import betaincc, betaln
from scipy.stats import beta

_LEAST_HITS = 5
_LEAST_FAULTS = 3


@dataclass(frozen=True, slots=True)
class Count:
    """`hits` of `trials`."""

    hits: int
    trials: int

    @property
    def ratio(self) -> float | None:
        return self.hits / self.trials if self.trials else None

    def plus(self, other: "Count") -> "Count":
        return Count(self.hits + other.hits, self.trials + other.trials)

    def __str__(self) -> str:
        return f"{self.hits} of {self.trials}" + (f" ({self.hits / self.trials:.2%})" if self.trials else "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much likelier the counts are under some difference than under none, and which way it points.

    `difference` is the challenger's ratio less the champion's; the likelihood ratio is `exp(log_ratio)`.
    """

    difference: float
    log_ratio: float

    def is_worse(self, alpha: float) -> bool:
        """Whether the challenger is worse. For equal versions ever true with probability below `alpha`."""
        return self.difference > 0 and self.log_ratio >= log(1 / alpha)

    @property
    def likelihood_ratio(self) -> float:
        return exp(self.log_ratio) if self.log_ratio < 700 else inf


def compare(champion: Count, challenger: Count, tau: float) -> Comparison:
    """The normal-mixture test of two ratios; `tau` is the size of difference that is looked for.

    With theta ~ N(0, tau^2) and V the variance of the difference under one common ratio:
    ratio = sqrt(V / (V + tau^2)) exp(tau^2 d^2 / (2 V (V + tau^2))).
    """
    if not champion.trials or not challenger.trials:
        return Comparison(0.0, 0.0)
    pooled = (champion.hits + challenger.hits) / (champion.trials + challenger.trials)
    variance = pooled * (1 - pooled) * (1 / champion.trials + 1 / challenger.trials)
    difference = challenger.hits / challenger.trials - champion.hits / champion.trials
    if variance == 0:  # none failed, or all did
        return Comparison(difference, 0.0)
    total = variance + tau**2
    exponent = tau**2 * difference**2 / (2 * variance * total)
    return Comparison(difference, log(sqrt(variance / total)) + exponent)


def faults_of_challenger(champion: Count, challenger: Count) -> Comparison:
    """An exact test of few faults, to which the normal mixture is blind: whose faults are they?

    For equal versions each fault is the challenger's with the probability of its share s of the trials, so
    the mean over theta uniform on (s, 1) of (theta/s)^hits ((1-theta)/(1-s))^champion_hits is a likelihood
    ratio that may be looked at at any time. Source: Grünwald, de Heide and Koolen, "Safe Testing",
    arXiv:1906.07801, section 1 (a mixture of likelihood ratios is an e-variable).
    """
    if not champion.trials or not challenger.trials:
        return Comparison(0.0, 0.0)
    share = challenger.trials / (champion.trials + challenger.trials)
    difference = challenger.hits / challenger.trials - champion.hits / champion.trials
    ours, theirs = challenger.hits, champion.hits
    above = float(betaincc(ours + 1, theirs + 1, share))
    if above == 0:
        return Comparison(difference, -inf)
    mixed = float(betaln(ours + 1, theirs + 1)) + log(above) - log(1 - share)
    return Comparison(difference, mixed - ours * log(share) - theirs * log(1 - share))


def is_worse(champion: Count, challenger: Count, tau: float, alpha: float) -> bool:
    """Whether the challenger fails more often, by either test; the exact one spends a tenth of the level.

    Of fewer hits than five the normal mixture takes a ratio near zero for certain: one fault would do.
    """
    is_normal = challenger.hits >= _LEAST_HITS
    by_rate = is_normal and compare(champion, challenger, tau).is_worse(alpha)
    # Faults may be counted before the answers of slower requests are: one or two say nothing of a share.
    is_counted = challenger.hits >= _LEAST_FAULTS
    return by_rate or (is_counted and faults_of_challenger(champion, challenger).is_worse(alpha / 10))


def ratio_bounds(count: Count, alpha: float) -> tuple[float, float]:
    """The two-sided Clopper-Pearson interval of a ratio, whose level is at least `1 - alpha`."""
    if not count.trials:
        return 0.0, 1.0
    missed = count.trials - count.hits
    low = float(beta.ppf(alpha / 2, count.hits, missed + 1)) if count.hits else 0.0
    high = float(beta.ppf(1 - alpha / 2, count.hits + 1, missed)) if missed else 1.0
    return low, high
