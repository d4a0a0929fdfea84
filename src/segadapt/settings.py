"""The base of everything a user can set, so that every room's settings have the same manners."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Settings(BaseModel):
    """Settings that live beside their owner: unknown keys are errors, every field has a description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )


MISSING = "???"
"""The value of a key that a recipe leaves to its user."""

NOT_A_RESULT: dict[str, JsonValue] = {"result": False}
"""Marks settings that do not change what comes out: they may differ when a run is resumed."""

SMALLEST, LARGEST = 8, 16383
"""Pixels on a side: what the networks here take (one with a larger stride says so), and WebP's largest picture."""
_Side = Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
Size = Annotated[tuple[_Side, _Side], Field(description="[width, height] in pixels")]
"""Width and height in pixels, in that order everywhere (as Pillow has it)."""
