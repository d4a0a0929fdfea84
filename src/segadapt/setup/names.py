"""How names of images and of their labels match: `0001_rgb` and `0001_ids` are one pair."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

Ends = tuple[str, str]
"""The endings of an image's name and its label's, where they differ."""
_SEPARATORS = "_-. "
_TRIED = 24  # labels whose image is searched for among all names


def stems_of(names: Iterable[str]) -> frozenset[str]:
    """Names without suffixes."""
    return frozenset(name.rpartition(".")[0] for name in names)


def matches(images: frozenset[str], labels: frozenset[str], ends: Ends) -> int:
    """How many labels have an image, with these endings."""
    image, label = ends
    bare = {stem.removesuffix(image) for stem in images}
    return sum(stem.endswith(label) and stem.removesuffix(label) in bare for stem in labels)


def _preference(ending: str) -> int:
    """Choose among several kinds of labels of an image: class ids rather than colours or instance ids."""
    word = ending.lower()
    return -1 if "inst" in word or "color" in word or "colour" in word else int("id" in word or "train" in word)


def _beginning(one: str, other: str) -> str:
    """The common prefix of both."""
    length = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def common_ends(images: frozenset[str], labels: frozenset[str]) -> Ends | None:
    """The endings that match the most labels with images; None if half of the labels, or of the images, have none."""
    enough = min(len(images), len(labels)) / 2
    if labels and len(images & labels) >= enough:
        return "", ""
    ordered, votes = sorted(images), Counter[Ends]()
    for label in islice(sorted(labels), _TRIED):
        nearest = max(ordered, key=lambda stem: (len(_beginning(stem, label)), -len(stem)), default="")
        shared = _beginning(nearest, label).rstrip(_SEPARATORS)
        ends = nearest[len(shared) :], label[len(shared) :]
        if shared and all(not any(character.isdigit() for character in end.strip(_SEPARATORS)[:1]) for end in ends):
            votes[ends] += 1
    if not votes:
        return None
    best = max(votes, key=lambda ends: (votes[ends], _preference(ends[1])))
    return best if matches(images, labels, best) >= enough else None
