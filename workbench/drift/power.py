"""What n items can show: the smallest change found with 80 % power by a two-sided 5 % test."""

import math
from statistics import NormalDist

from scipy import optimize

POWER = 0.8
DISCORDANT = 0.2
"""Share of items assumed to flip between two policies, where nothing is known: between the 0.1 of a light round and
the 0.3 of one that learns much. More flips hide a change better."""


def smallest_share_change(
    n: float, *, discordant: float = DISCORDANT, alpha: float = 0.05, power: float = POWER
) -> float | None:
    """Smallest change of a share that n paired items can show.

    Solves n = (z_{1-alpha/2} sqrt(d) + z_power sqrt(d - change^2))^2 / change^2 for the change, d the discordant share
    (McNemar's test, Connor 1987). With d = 1 every item is a decided vote and the win rate shown is (1 + change) / 2.

    Args:
        n: independent pairs of items; fewer where they are grouped.
        discordant: assumed share of items that flip one way or the other, above 0, at most 1.
        alpha: two-sided level of the test.
        power: chance of finding the change.

    Returns:
        The change as a share, at most `discordant`; None where not even all flips going one way would show.

    Raises:
        ValueError: n is negative or the discordant share out of bounds.
    """
    if n < 0 or not 0 < discordant <= 1:
        raise ValueError(f"n >= 0 and 0 < discordant <= 1 expected, got n = {n}, discordant = {discordant}")
    found, chance = _quantiles(alpha, power)

    def lacking(change: float) -> float:
        spread = max(discordant - change**2, 0.0)
        return found * math.sqrt(discordant) + chance * math.sqrt(spread) - change * math.sqrt(n)

    if lacking(discordant) > 0:
        return None
    return float(optimize.brentq(lacking, 0.0, discordant, full_output=False))


def smallest_mean_change(n: float, sd: float, *, alpha: float = 0.05, power: float = POWER) -> float | None:
    """Smallest change of a mean that n items can show: (z_{1-alpha/2} + z_power) sd / sqrt(n).

    Args:
        n: independent items, or pairs of items.
        sd: known standard deviation of an item, for paired items of their difference; sets the unit.
        alpha: two-sided level of the test.
        power: chance of finding the change.

    Returns:
        The change in the unit of `sd`; None where n is 0.

    Raises:
        ValueError: n or sd is negative.
    """
    if n < 0 or sd < 0:
        raise ValueError(f"n and sd of at least 0 expected, got n = {n}, sd = {sd}")
    return sum(_quantiles(alpha, power)) * sd / math.sqrt(n) if n else None


def chance_of_showing(change: float, error: float, *, alpha: float = 0.05) -> float:
    """The chance that a change of a mean shows as an increase: that (estimate - z_{1-alpha/2} error) is above 0.

    Args:
        change: the true change.
        error: its standard error, in the same unit, above 0.
        alpha: two-sided level of the test.

    Raises:
        ValueError: the error is not above 0.

    >>> round(chance_of_showing(2.8, 1.0), 2)
    0.8
    """
    if error <= 0:
        raise ValueError(f"error = {error:g}: expected more than 0")
    return NormalDist().cdf(change / error - NormalDist().inv_cdf(1 - alpha / 2))


def _quantiles(alpha: float, power: float) -> tuple[float, float]:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2), normal.inv_cdf(power)
