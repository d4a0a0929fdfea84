"""Which network on the way is kept: by target labels, or by the criterion without labels that a recipe names."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from segadapt.engine.selection import Selection, Selector
from segadapt.methods.supervised import SourceOnlySettings

SCORES = [
    {"target_miou": 10.0, "infomax": 0.5, "snd": 3.0, "bnm": 0.2},
    {"target_miou": 30.0, "infomax": 0.4, "snd": 5.0, "bnm": 0.1},
    {"target_miou": 20.0, "infomax": 0.6, "snd": 4.0, "bnm": 0.3},
]


def selector(folder: Path, criterion: str) -> tuple[Selector, dict[Selection, int]]:
    kept: dict[Selection, int] = {}

    def save(path: Path, step: int, selection: Selection) -> None:
        path.touch()
        kept[selection] = step

    return Selector(folder, save, -1.0, criterion), kept


@pytest.mark.parametrize(("criterion", "best"), [("infomax", 3), ("snd", 2), ("bnm", 3)])
def test_the_criterion_of_the_recipe_chooses(tmp_path: Path, criterion: str, best: int) -> None:
    chosen, kept = selector(tmp_path, criterion)
    for step, scores in enumerate(SCORES, start=1):
        chosen.consider(step, scores)
    assert kept == {"best_target": 2, "label_free": best}
    assert [value for _, value, _ in chosen.history] == [scores[criterion] for scores in SCORES]


def test_a_stage_continued_with_another_criterion_begins_to_compare_anew(tmp_path: Path) -> None:
    before, _ = selector(tmp_path, "snd")
    before.consider(1, SCORES[1])
    same, _ = selector(tmp_path, "snd")
    same.load_state(before.state())
    assert set(same.best) == {"best_target", "label_free"}
    other, kept = selector(tmp_path, "bnm")
    other.load_state(before.state())
    other.consider(2, SCORES[0])  # its bnm is below the other's snd
    assert kept == {"label_free": 2} and other.best["best_target"].step == 1
    earlier = {key: value for key, value in before.state().items() if key != "criterion"}  # of an earlier version
    other.load_state(earlier)
    assert "label_free" not in other.best


def test_a_criterion_is_for_a_selection_without_labels() -> None:
    given = {"network": "deeplab_small", "steps": 3, "criterion": "snd"}
    assert SourceOnlySettings.model_validate({**given, "select": "label_free"}).criterion == "snd"
    with pytest.raises(ValidationError, match="`criterion` applies only with select: label_free"):
        SourceOnlySettings.model_validate(given)
