"""What the stages `stylize` and `pseudo_labels` can be told."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from segadapt.quirks import QuirkySettings
from segadapt.settings import NOT_A_RESULT, Size


class StylizeSettings(QuirkySettings):
    """Settings of `stylize`: every source image in the target's style, as files of the same names."""

    method: Literal["stylize"] = "stylize"
    generator: str = Field(description="`@stage`, a generator's safetensors file or a published `transformer_net`")
    split: str = Field("train", description="the source images to stylize: train, or val where the source has it")
    size: Size | None = Field(
        None, description="input size of the generator; null: the one that it was trained for, else 1024×512"
    )
    output_size: Size | None = Field(
        None, description="size of the stylized images; null: each as large as its original"
    )
    batch: PositiveInt = Field(2, description="images that go through the generator at once")
    png_level: int = Field(
        1,
        ge=0,
        le=9,
        description="compression of the files, 0 (none, fastest) to 9; the pixels are the same",
        json_schema_extra=NOT_A_RESULT,
    )


class PseudoLabelsSettings(QuirkySettings):
    """Settings of `pseudo_labels`: what a model says about the target's train images, as labels to train with."""

    method: Literal["pseudo_labels"] = "pseudo_labels"
    model: str = Field(description="`@stage`, a model.safetensors or a published checkpoint")
    scales: list[Annotated[float, Field(gt=0, le=8)]] = Field(
        [1.0, 0.75, 1.25, 1.5], min_length=1, description="input scales, up to 8, whose softmax maps are averaged"
    )
    mirror: bool = Field(True, description="add the mirror image of every scale")
    size: Size | None = Field(
        None, description="input size of the network and size of the labels; null: the one that the model says"
    )
    select: Literal["class_confidence", "all"] = Field(
        "class_confidence",
        description="the pixels that get a label: the most confident ones of each class, or all; with `official` all",
    )
    keep: float = Field(0.5, gt=0, le=1, description="share of each class's pixels, the most confident ones, to keep")
    certain: float = Field(0.9, gt=0, le=1, description="confidence from which a pixel is kept whatever its class")
    mask: Path | None = Field(
        None, description="a picture whose black pixels get no label (the ego vehicle, say), stretched over each image"
    )
    border: int = Field(0, ge=0, description="pixels along each side of the label map that get no label")
    flat: bool = Field(
        False,
        description="the labels as the published self-training reads them: all side by side, as grey "
        "NAME_PseudoLabel.png, without the images' sub-folders",
    )

    @model_validator(mode="before")
    @classmethod
    def _select_as_published(cls, values: Any) -> Any:
        """The published program keeps every pixel; written out, so that a resolved recipe says so."""
        if isinstance(values, dict) and values.get("official") is True and "select" not in values:
            return {**values, "select": "all"}
        return values
