"""A recipe: the whole of a run, typed. A recipe file is a short diff over the defaults here and in the methods."""

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from segadapt.data.sides import DataSettings
from segadapt.engine.runtime import RuntimeSettings
from segadapt.quirks import QuirkySettings
from segadapt.references import references
from segadapt.settings import Settings
from segadapt.stages.shipped import stage_kinds


def stage_types() -> dict[str, type[QuirkySettings]]:
    """What a stage's `method` can say, registered methods included -> the settings of such a stage."""
    return {name: kind.settings_type for name, kind in stage_kinds().items()}


def _stage(value: object) -> QuirkySettings:
    if isinstance(value, QuirkySettings):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("model_attributes_type", "Input should be keys with values")
    method = value.get("method")
    if not isinstance(method, str) or method not in stage_types():
        raise PydanticCustomError("union_tag_invalid", "Input should be a known method")
    return stage_types()[method].model_validate(value)


class _OfAnyType:
    """Reads and writes any of `stage_types`, whichever are registered when a recipe is read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _stage,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda stage, info: stage.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults),
                info_arg=True,
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(settings.__pydantic_core_schema__) for settings in stage_types().values()]}


StageSettings = Annotated[QuirkySettings, _OfAnyType()]
"""The settings of a stage: of the type that its `method` names."""


class Recipe(Settings):
    """The whole of a run."""

    description: str = Field("", description="one line for `segadapt recipes`")
    label_space: str = Field("cityscapes19", description="the classes: a name that ships with segadapt, or a YAML file")
    data: DataSettings
    stages: dict[str, StageSettings] = Field(description="stages by name, run in this order")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of everything random: order, augmentation, noise, fresh weights"
    )
    runtime: RuntimeSettings = Field(
        RuntimeSettings(), description="device, precision, threads, workers, compiling, CUDA graphs, trackers"
    )

    @field_validator("stages")
    @classmethod
    def _names(cls, stages: dict[str, StageSettings]) -> dict[str, StageSettings]:
        if not stages:
            raise ValueError("a recipe needs at least one stage")
        for name in stages:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"stage name '{name}' may only have letters, digits, _ and -")
        return stages

    @model_validator(mode="after")
    def _references(self) -> "Recipe":
        """`@name` must be a stage that comes before."""
        before: list[str] = []
        for name, stage in self.stages.items():
            for key, referred in references(stage).items():
                if referred not in before:
                    known = ", ".join(before) or "none"
                    raise ValueError(
                        f"stages.{name}.{key}: '@{referred}' is not a stage before '{name}' (before it: {known}). "
                        f"Name one of these or a file, or leave this stage out too: stages.{name}=null."
                    )
            before.append(name)
        return self
