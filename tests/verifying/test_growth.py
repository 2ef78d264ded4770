"""The helper that judges growth tells quadratic work from linear work."""

from tests.verifying.growth import grows_linearly


def test_linear_work_passes() -> None:
    assert grows_linearly(lambda num: sum(range(num)), 200_000)


def test_quadratic_work_does_not() -> None:
    assert not grows_linearly(lambda num: [sum(range(num)) for _ in range(num)], 600)
