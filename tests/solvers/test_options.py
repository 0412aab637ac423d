import math

import numpy as np
import pytest
import torch

from cliffsteer.solvers.options import choice, draw, number, number_range, require_values, value_or_range, vector, whole


def test_good_values_pass():
    assert whole("n", np.int64(4), 4) == 4
    assert type(whole("n", np.int64(4), 4)) is int
    assert choice("dim", 2, (2, 3)) == 2
    assert number("x", 3, "m", low=3) == 3.0
    assert vector("x", np.array([1, 2.5]), 2) == (1.0, 2.5)
    assert number_range("x", None) is None
    assert number_range("x", [1, 2]) == (1.0, 2.0)
    assert value_or_range("x", None, None, 7.0) == (7.0, None)
    assert value_or_range("x", 5, None, 7.0) == (5.0, None)
    assert value_or_range("x", None, (1, 1), 7.0) == (7.0, (1.0, 1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whole("n", 3, 4, " of cells"), r"`n` \(=3\) must be a whole number of cells, at least 4"),
        (lambda: whole("n", True, 0), r"`n` \(=True\) must be a whole number, at least 0"),
        (lambda: whole("n", 4.0, 0), r"`n` \(=4.0\) must be a whole number"),
        (lambda: choice("dim", 1, (2, 3), ": so it is"), r"`dim` \(=1\) must be 2 or 3: so it is\."),
        (lambda: number("x", "thick", "m"), r"`x` \(='thick'\) must be a finite number in m\."),
        (lambda: number("x", math.nan), r"`x` \(=nan\) must be a finite number\."),
        (lambda: number("x", -1, low=0), r"`x` \(=-1\) must be a finite number, at least 0"),
        (lambda: number("x", 0, "s", above=0), r"`x` \(=0\) must be a finite number in s above 0"),
        (lambda: vector("x", 1.0, 2, "m"), r"`x` \(=1.0\) must have 2 components, in m\."),
        (lambda: vector("x", "ab", 2), r"`x` \(='ab'\) must have 2 components\."),
        (lambda: vector("x", (1, None), 2), r"`x` \(=None\) must be a finite number\."),
        (lambda: number_range("x", 0.1), r"`x_range` \(=0.1\) must be a pair \(lowest, highest\)"),
        (lambda: number_range("x", "ab"), r"`x_range` \(='ab'\) must be a pair"),
        (lambda: number_range("x", (2, 1)), r"`x_range` \(=\(2, 1\)\) must be a pair .*, lowest <= highest"),
        (lambda: number_range("x", (-1, 1), low=0), r"`x_range` \(=-1\) must be a finite number, at least 0"),
        (lambda: value_or_range("x", 1, (1, 2), 7.0), r"`x` \(=1\) and `x_range` \(=\(1, 2\)\) exclude each other"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_draws():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw((2.0, 3.0), 9.0, generator) for _ in range(100)])
    assert drawn.dtype == torch.float64
    assert 2 <= float(drawn.min()) < 2.1
    assert 2.9 < float(drawn.max()) <= 3
    a, b = (torch.Generator().manual_seed(1) for _ in range(2))
    assert draw(None, 9.0, a).tolist() == [9.0]
    draw((0.0, 1.0), 9.0, b)
    assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))


def test_parameters_of_each_trajectory_are_checked():
    require_values("x", torch.tensor([[0.0], [1.0]]), low=0)
    for values, limits, message in [
        ([[1.0], [math.inf]], {}, r"`x` \(=inf m\) must be finite: so it is not in trajectory 1 of the batch"),
        ([[-1.0], [1.0]], {"low": 0}, r"`x` \(=-1 m\) must be finite and at least 0: .* trajectory 0"),
        ([[1.0], [0.0]], {"above": 0}, r"`x` \(=0 m\) must be finite and above 0: .* trajectory 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_values("x", torch.tensor(values), "m", **limits)
