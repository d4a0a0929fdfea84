"""Settings that came later are off by default: what older versions have finished stays finished."""

import pytest

from segadapt.files import digest
from segadapt.methods.adaptsegnet import AdaptSegNetSettings
from segadapt.methods.settings import TrainingSettings
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.pipeline.history import switched_on
from segadapt.plain_data import flat

GIVEN = {
    "steps": 10,
    "optimizer": "sgd",
    "lr": 1e-3,
    "schedule": "polynomial",
    "batch": 2,
    "shuffle": False,
    "size": [64, 32],
    "augment": {"mirror": 0.5, "crop": [32, 32], "scale": [0.5, 2]},
    "head_lr": 10,
    "official": True,
}
DIGESTS: list[tuple[type[TrainingSettings], str]] = [
    (SourceOnlySettings, "42d2b2434cb4cef346c6cfc7c788e42888a6bec1005aa52d73e34b7d910fac78"),
    (AdaptSegNetSettings, "7092d26083b7fb8dd21058a319e3660586ca883591b25bc982d042cfcdb2a38b"),
]
"""Of what these settings put into a fingerprint, as the version before these keys had it."""


@pytest.mark.parametrize(("kind", "before"), DIGESTS)
def test_what_a_fingerprint_has_of_the_settings_is_as_before(kind: type[TrainingSettings], before: str) -> None:
    assert digest(switched_on(flat(kind.model_validate(GIVEN).model_dump(mode="json")))) == before
