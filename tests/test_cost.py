"""How fast this machine is said to be, and the precision that follows, with rates made up."""

import pytest

from workbench.config import NumericsSettings
from workbench.models import cost

PRODUCT = 2 * cost.ROWS * cost.WIDTH * 4 * cost.WIDTH
"""Operations of one of the products that are timed: a multiplication and an addition for every row, column and term."""


def test_slow_turns_do_not_count_and_memory_is_kept_before_any(monkeypatch):
    done, rates = [], iter([1.0, 7.0, 3.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(cost, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(cost, "_products_per_s", lambda *_: done.append("timed") or next(rates))
    assert cost.flops_per_s(NumericsSettings()) == 7 * PRODUCT
    assert done == ["kept"] + ["timed"] * cost.TURNS


@pytest.mark.parametrize(("half", "taken"), [(1.4, "bfloat16"), (1.3, "float32"), (0.5, "float32")])
def test_rounding_is_taken_only_where_it_is_worth_it(monkeypatch, half, taken):
    monkeypatch.setattr(cost, "flops_per_s", lambda n: half if n.dtype == "bfloat16" else 1.0)
    assert cost.fastest(2) == NumericsSettings(dtype=taken, threads=2)


def test_what_is_timed_is_a_rate():
    assert cost.flops_per_s(NumericsSettings(threads=1)) > PRODUCT  # more than one product a second
