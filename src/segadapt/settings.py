"""The base of everything a user can set, so that every room's settings have the same manners."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings that live beside their owner: unknown keys are errors, every field has a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


Size = Annotated[
    tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]], Field(description="[width, height] in pixels")
]
"""Width and height in pixels, in that order everywhere (as Pillow has it)."""
