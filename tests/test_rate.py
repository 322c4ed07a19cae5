"""How fast this machine is said to be, and the precision that follows, with rates made up."""

import pytest

from workbench.config import NumericsSettings
from workbench.models import rate

PRODUCT = 2 * rate.ROWS * rate.WIDTH * 4 * rate.WIDTH
"""Operations of one of the products that are timed: a multiplication and an addition for every row, column and term."""


def test_slow_turns_do_not_count_and_memory_is_kept_before_any(monkeypatch):
    done, rates = [], iter([1.0, 7.0, 3.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(rate, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(rate, "_products_per_s", lambda *_: done.append("timed") or next(rates))
    assert rate.flops_per_s(NumericsSettings()) == 7 * PRODUCT
    assert done == ["kept"] + ["timed"] * rate.TURNS


@pytest.mark.parametrize(("half", "taken"), [(1.4, "bfloat16"), (1.3, "float32"), (0.5, "float32")])
def test_rounding_is_taken_only_where_it_is_worth_it(monkeypatch, half, taken):
    monkeypatch.setattr(rate, "_products_per_s", lambda n: half if n.dtype == "bfloat16" else 1.0)
    assert rate.fastest(2) == NumericsSettings(dtype=taken, threads=2)


@pytest.mark.parametrize("first", range(2 * rate.TURNS))
@pytest.mark.parametrize(("half", "taken"), [(1.6, "bfloat16"), (1.2, "float32")])
def test_what_else_runs_for_half_of_the_time_does_not_decide(monkeypatch, half, taken, first):
    """It slows half of the turns to a quarter, whenever it begins; the others tell the truth of both."""
    turn = iter(range(2 * rate.TURNS))

    def products_per_s(numerics):
        busy = (next(turn) - first) % (2 * rate.TURNS) < rate.TURNS
        return (half if numerics.dtype == "bfloat16" else 1.0) / (4 if busy else 1)

    monkeypatch.setattr(rate, "_products_per_s", products_per_s)
    assert rate.fastest(2) == NumericsSettings(dtype=taken, threads=2)


def test_what_is_timed_is_a_rate():
    assert rate.flops_per_s(NumericsSettings(threads=1)) > PRODUCT  # more than one product a second
