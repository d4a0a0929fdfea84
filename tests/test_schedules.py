"""Learning rates over the steps, against numbers by hand and those of the published schedule."""

from typing import Any

import pytest

from segadapt import schedules
from segadapt.methods.supervised import SourceOnlySettings

DAFORMER = {
    0: 6.000000000172534e-11,
    1: 4.0058958501000673e-08,
    100: 3.990055860000003e-06,
    749: 2.9399028477501008e-05,
}
DAFORMER |= {1499: 5.7712999038501e-05, 1500: 5.775e-05, 10000: 4.5e-05, 39998: 2.9999999999996695e-09}
"""Step -> rate of mmcv 1.3.7 as DAFormer, HRDA and MIC set it, recorded from the running program."""


def settings(**changes: Any) -> SourceOnlySettings:
    return SourceOnlySettings.model_validate({"network": "deeplab_small", "steps": 40000} | changes)


def test_the_published_warm_up_multiplies_the_decaying_rate() -> None:
    given = settings(lr=6e-5, schedule="polynomial", power=1, warmup_steps=1500, warmup_ratio=1e-6)
    rates = {step: given.lr * schedules.factor(given, step, 40000) for step in DAFORMER}
    assert rates == pytest.approx(DAFORMER, rel=1e-12)
    unsaid = settings(schedule="polynomial", power=1, warmup_steps=1500)
    assert schedules.factor(unsaid, 7, 40000) == schedules.factor(given, 7, 40000)


def test_polynomial_cosine_and_constant() -> None:
    course = [schedules.factor(settings(schedule="cosine"), step, 4) for step in range(6)]
    assert course == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0, 0])
    assert schedules.factor(settings(schedule="polynomial"), 1, 4) == 0.75**0.9
    assert schedules.factor(settings(schedule="polynomial", power=2), 1, 4) == 0.75**2
    assert schedules.factor(settings(schedule="polynomial"), 5, 4) == 0
    assert [schedules.factor(settings(), step, 4) for step in (0, 3, 9)] == [1, 1, 1]
    warm = settings(warmup_steps=4, warmup_ratio=0.2)
    assert [schedules.factor(warm, step, 9) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_a_cosine_schedule_is_at_least_as_long_as_the_training() -> None:
    with pytest.raises(ValueError, match="schedule_steps is 9"):
        settings(steps=10, schedule="cosine", schedule_steps=9)
