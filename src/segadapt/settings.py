"""The base of everything a user can set, so that every room's settings have the same manners."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """Settings that live beside their owner: unknown keys are errors, every field has a description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_true(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true, which is also YAML's `on`, for the number 1."""
        parts = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(part, bool) for part in parts):
            named = _types_in(cls.model_fields[str(info.field_name)].annotation)
            if named & {int, float} and not named & {bool, Any}:
                raise PydanticCustomError("number_type", "Input should be a number")
        return value


def _types_in(annotation: Any) -> set[Any]:
    """All types that an annotation is made of."""
    return {annotation}.union(*map(_types_in, get_args(annotation)))


MISSING = "???"
"""The value of a key that a recipe leaves to its user."""

NOT_A_RESULT: dict[str, JsonValue] = {"result": False}
"""Marks settings that do not change what comes out: they may differ when a run is resumed."""

SMALLEST, LARGEST = 8, 16383
"""Pixels on a side: what the networks here take (one with a larger stride says so), and WebP's largest picture."""
_Side = Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
Size = Annotated[tuple[_Side, _Side], Field(description="[width, height] in pixels")]
"""Width and height in pixels, in that order everywhere (as Pillow has it)."""
