"""Encodings of data sets by way of another one: raw id -> id of Cityscapes, for every label space that reads those.

    derived_encodings()["mapillary"].table(space.table("cityscapes"))     # uint8 (256,): raw id -> train id

They are no part of a label space, whose content is in the fingerprints of runs and in the headers of models: so a data
set more changes neither. A label space that has an encoding of the same name uses its own.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from segadapt.errors import UsageError
from segadapt.files import digest
from segadapt.plain_data import read_yaml
from segadapt.settings import Settings

FOLDER = Path(__file__).parent


class EncodingFile(Settings):
    """A file of `encodings/`."""

    name: str
    description: str
    via: str = Field(description="the encoding whose ids these stand for")
    ids: dict[int, int] = Field(description="raw id -> id of `via`")
    ignored: list[int] = Field(description="raw ids that are known and stand for nothing")


@dataclass(frozen=True, eq=False)
class DerivedEncoding:
    """Raw ids that stand for those of another encoding."""

    name: str
    description: str
    via: str
    ids: dict[int, int]
    ignored: tuple[int, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides train ids."""
        return digest([self.via, sorted(self.ids.items()), sorted(self.ignored)])

    def table(self, via: NDArray[np.uint8], ignore: int, unknown: int) -> NDArray[np.uint8]:
        """uint8 (256,): raw id -> train id, from the same table of `via`; ids that nothing is said of are `unknown`."""
        table = np.full(256, unknown, np.uint8)
        for raw, other in self.ids.items():
            table[raw] = via[other]
        table[list(self.ignored)] = ignore
        return table


@cache
def derived_encodings() -> dict[str, DerivedEncoding]:
    """All that ship with the package, by name."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.yaml"))}


def _read(path: Path) -> DerivedEncoding:
    try:
        file = EncodingFile.model_validate(read_yaml(path, "the encoding"))
    except ValidationError as failure:
        raise UsageError(f"is not an encoding ({failure})", where=path, remedy="Install segadapt again.") from failure
    return DerivedEncoding(file.name, file.description, file.via, file.ids, tuple(file.ignored))
