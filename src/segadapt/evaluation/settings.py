"""What the `evaluate` stage can be told."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segadapt.quirks import QuirkySettings
from segadapt.settings import Size


class EvaluateSettings(QuirkySettings):
    """Settings of `evaluate`."""

    method: Literal["evaluate"] = "evaluate"
    model: str = Field(description="`@stage`, a model.safetensors or a published checkpoint")
    split: str = Field(
        "val", description="the labelled target images to score on: val, or test where the layout has it"
    )
    target: bool = Field(True, description="score on the target's images of `split`")
    source: bool = Field(False, description="score on the source's val images")
    scales: list[Annotated[float, Field(gt=0, le=8)]] = Field(
        [1.0], min_length=1, description="input scales, up to 8, whose softmax maps are averaged"
    )
    mirror: bool = Field(False, description="add the mirror image of every scale")
    window: Size | None = Field(None, description="sliding window, [width, height]; null: whole images")
    size: Size | None = Field(None, description="network input size; null: the one that the model was trained for")

    @model_validator(mode="after")
    def _something(self) -> "EvaluateSettings":
        if not (self.target or self.source):
            raise ValueError("target and source are both false: there is nothing to score on. Set one of them.")
        return self
