"""How the names of images and of their labels belong together: `0001_rgb` and `0001_ids` are one pair."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

Ends = tuple[str, str]
"""What an image's name and its label's end with where they differ."""
_SEPARATORS = "_-. "
_TRIED = 24  # labels whose image is looked for among so many names as there are


def stems_of(names: Iterable[str]) -> frozenset[str]:
    """Names without their suffixes."""
    return frozenset(name.rpartition(".")[0] for name in names)


def matches(images: frozenset[str], labels: frozenset[str], ends: Ends) -> int:
    """How many labels have an image, with such ends of their names."""
    image, label = ends
    bare = {stem.removesuffix(image) for stem in images}
    return sum(stem.endswith(label) and stem.removesuffix(label) in bare for stem in labels)


def _preference(ending: str) -> int:
    """Of several kinds of labels of one image: ids of classes rather than their colours or ids of instances."""
    word = ending.lower()
    return -1 if "inst" in word or "color" in word or "colour" in word else int("id" in word or "train" in word)


def _beginning(one: str, other: str) -> str:
    """The characters that both begin with."""
    length = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def common_ends(images: frozenset[str], labels: frozenset[str]) -> Ends | None:
    """The ends with which the most labels have an image; None where half of the labels, or of the images, have none."""
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
