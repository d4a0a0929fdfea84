"""Settings that name a file, a folder or, with `@stage`, what another stage gives."""

from dataclasses import dataclass

from segadapt.settings import Settings


@dataclass(frozen=True)
class Product:
    """What a kind of stage gives to others."""

    words: str  # as a person says it
    folder: bool = False  # whether it is a folder of files, and not one file


SEGMENTER = Product("a segmenter")
GENERATOR = Product("a generator")
STYLIZED = Product("stylized images", folder=True)
PSEUDO_LABELS = Product("pseudo-labels", folder=True)
SCORES = Product("scores")


@dataclass(frozen=True)
class Names:
    """Marks a setting that names a file or folder, in its annotation: `model: Annotated[str, Names("the model", …)]`.

    Its content is part of the stage's fingerprint, and what it says about target labels is part of the provenance.
    """

    what: str  # in words
    gives: Product | None = None  # what a stage that it names must give; None: it names no stage
    initial: bool = False  # weights to begin with: by a name of initial weights, or a stage that gives the same
    learned: bool = True  # whether target labels may have been used for it


def named_by(settings: type[Settings]) -> dict[str, Names]:
    """Key -> what it names, of the settings that name files, folders or stages."""
    return {
        key: mark for key, field in settings.model_fields.items() for mark in field.metadata if isinstance(mark, Names)
    }


def paths_in(settings: Settings, key: str) -> list[str]:
    """The paths or the `@stage` that a setting names, none where it is not set."""
    value = getattr(settings, key)
    return [str(name) for name in (value if isinstance(value, list) else [value]) if name is not None]


def references(settings: Settings) -> dict[str, str]:
    """Key -> name of the stage that it refers to with `@name`."""
    found = {}
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, str) and value.startswith("@"):
            found[key] = value[1:]
    return found
