"""What `segadapt data check` warns of: data that training can use as it is, and that hardly anybody wants so."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from segadapt.data.label_spaces import IGNORE, UNKNOWN
from segadapt.data.statistics import one_class_only
from segadapt.data.tools.check import Files, Findings

MUCH_IGNORED, MUCH_UNKNOWN = 50.0, 1.0
"""Percent of a split's pixels from which ignored and unknown ids are spoken of."""
_NAMED = 6  # of classes that do not occur
MASK = 255
"""What painting programs write for "yes"; in train ids it is "ignored"."""


def warnings_about(findings: Findings) -> list[str]:
    """One sentence for each doubtful thing in a split."""
    labels = [] if findings.reader is None or not findings.labelled else [*_about_classes(findings)]
    return [*labels, *_about_files(findings), *_about_exif(findings)]


def _about_classes(findings: Findings) -> Iterator[str]:
    classes = findings.space.classes
    pixels, total = findings.pixels[: len(classes)], int(findings.pixels.sum())
    lacking = [name for name, count in zip(classes, pixels, strict=True) if not count]
    wrong = _mask(findings) if lacking else None
    if wrong is None and (one := one_class_only(pixels.tolist(), classes)) is not None:
        wrong = f"{one}. A network learns nothing from such labels, and any score is worthless"
    if wrong is not None:
        yield wrong
        return
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        yield f"no pixel of {', '.join(lacking[:_NAMED])}{more} ({len(lacking)} of {len(classes)} classes)"
    if findings.nothing:
        yield f"{_count(findings.nothing, 'label has', 'labels have')} no pixel with a class ({findings.nothing})"
    ignored, unknown = (100 * float(findings.pixels[value]) / max(total, 1) for value in (IGNORE, UNKNOWN))
    if ignored >= MUCH_IGNORED:
        yield f"{ignored:.1f} % of the pixels are ignored"
    if unknown >= MUCH_UNKNOWN and not findings.unknown_is_error:
        yield f"{unknown:.1f} % of the pixels have ids that the encoding does not know, and are ignored"


def _mask(findings: Findings) -> str | None:
    """What to do about labels of 0 and 255 whose encoding has no class at 255; None when they are no such masks."""
    if findings.reader is None or np.flatnonzero(findings.raw).tolist() != [0, MASK]:
        return None
    encoding = findings.reader.encoding
    meaning = {IGNORE: "'ignored'", UNKNOWN: "no class"}.get(int(findings.space.table(encoding)[MASK]))
    if meaning is None:
        return None
    return (
        f"the labels are masks of 0 and {MASK}, and {MASK} is {meaning} in encoding '{encoding}': "
        f"give it to a class with an encoding of your own, such as ids: {{mask: {MASK}}} (docs/data-sets.md)"
    )


def _about_files(findings: Findings) -> Iterator[str]:
    listed = Files([name for name, times in Counter(pair.name for pair in findings.pairs).items() if times > 1])
    if listed:
        yield f"{_count(listed, 'image is', 'images are')} listed more than once ({listed})"
    equal = Files([_equals(sorted(set(names))) for names in findings.content.values() if len(set(names)) > 1])
    if equal:
        yield f"images that are equal in every pixel: {equal}"
    by_label: dict[str, list[str]] = {}
    for pair in {pair.name: pair for pair in findings.pairs if pair.label is not None}.values():
        by_label.setdefault(str(pair.label), []).append(pair.name)
    shared = Files([_equals(names, " and ") for names in by_label.values() if len(names) > 1])
    if shared:
        yield f"images that share one label: {shared}"
    if findings.doubled:
        yield f"two labels for one image, of which the first is read: {findings.doubled}"
    if findings.orphans:
        yield f"{_count(findings.orphans, 'label belongs', 'labels belong')} to no image ({findings.orphans})"


def _about_exif(findings: Findings) -> Iterator[str]:
    if findings.other_way:
        other = "raw" if findings.exif == "turn" else "turn"
        yield (
            f"{_count(findings.other_way, 'label has', 'labels have')} the size of the image only with exif: {other} "
            f"({findings.other_way})"
        )


def warnings_between(splits: Sequence[Findings]) -> list[str]:
    """One sentence for each two splits that share images: what is validated on must not be trained on."""
    found = []
    for one, other in combinations(splits, 2):
        contents = [(names, other.content[key]) for key, names in one.content.items() if key in other.content]
        pairs = [(a if a in names else names[0], a) for names, others in contents for a in dict.fromkeys(others)]
        if pairs:
            files = Files([b if a == b else f"{b}, which is {a} of {one.split}" for a, b in pairs])
            count = _count(files, "image", "images")
            found.append(f"{count} of {other.split}, {other.images} in all, can be found in {one.split} too ({files})")
    return found


def _equals(names: Sequence[str], sign: str = " = ") -> str:
    return sign.join(names[:3]) + (f"{sign}…" if len(names) > 3 else "")


def _count(files: Files, one: str, many: str) -> str:
    return f"{len(files)} {one if len(files) == 1 else many}"
