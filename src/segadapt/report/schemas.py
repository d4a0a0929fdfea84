"""Schemas of the files that stages write, as far as a report reads them, since files may have been altered.

Other keys are allowed, since newer versions write more. Numbers must be finite and not text.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segadapt.plain_data import Json

Share = float | None
Percent = Annotated[float, Field(ge=0, le=100)] | None
Count = Annotated[int, Field(ge=0, lt=2**53)]
"""Limit of pixel counts: what float64 represents exactly."""


class _Written(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Calibration(_Written):
    """Counts per bin of confidence."""

    pixels: list[Count]
    right: list[Count]
    confidence: list[Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _as_long(self) -> "_Calibration":
        if not len(self.pixels) == len(self.right) == len(self.confidence):
            raise ValueError("pixels, right and confidence are not of one length")
        return self


class _PerImage(_Written):
    """Scores of single images."""

    names: list[str]
    miou: list[Share]
    pixel_accuracy: list[Share]

    @model_validator(mode="after")
    def _as_long(self) -> "_PerImage":
        if not len(self.names) == len(self.miou) == len(self.pixel_accuracy):
            raise ValueError("names and scores are not of one length")
        return self


class _Scores(_Written):
    """One domain of evaluation.json; percent. Earlier versions wrote less."""

    miou: Percent = None
    pixel_accuracy: Percent = None
    mean_accuracy: Percent = None
    dice: Percent = None
    subsets: dict[str, Share] | None = None
    per_class: dict[str, Share] | None = None
    per_class_accuracy: dict[str, Share] | None = None
    per_class_dice: dict[str, Share] | None = None
    ece: Percent = None
    calibration: _Calibration | None = None
    per_image: _PerImage | None = None
    scales: list[float] | None = None
    confusion: list[list[Count]] | None = None
    columns: list[str] | None = None

    @model_validator(mode="after")
    def _rows_and_columns(self) -> "_Scores":
        if self.confusion is not None:
            rows, columns = len(self.per_class or {}), len(self.columns or [])
            if len(self.confusion) != rows or any(len(row) != columns for row in self.confusion):
                raise ValueError(f"the confusion matrix is not {rows} × {columns}")
            if columns not in (rows, rows + 1):
                raise ValueError(f"the confusion matrix has {columns} columns for {rows} classes")
        return self


class _LabelFree(_Written):
    spearman: float | None = Field(None, ge=-1, le=1)
    points: int | None = None
    criteria: dict[str, Share] | None = None


class _Evaluation(_Written):
    """evaluation.json."""

    step: int | None = Field(None, ge=0)
    used_target_labels: bool | None = None
    label_free: _LabelFree | None = None
    domains: dict[str, _Scores] | None = None


class _Result(_Written):
    """result.json; shares of 1."""

    images: int | None = None
    labelled: float | None = Field(None, ge=0, le=1)
    kept: dict[str, Share] | None = None
    share: dict[str, float] | None = None
    thresholds: dict[str, Share] | None = None
    used_target_labels: bool | None = None


class _Decided(_Written):
    steps: int | None = Field(None, ge=0)


class _About(_Written):
    """stage.json."""

    state: str | None = None
    content: Json | None = None
    decided: _Decided | None = None


class _Cost(_Written):
    """cost.json; bytes."""

    seconds: float | None = Field(None, ge=0)
    memory: int | None = Field(None, ge=0)
    device_memory: int | None = Field(None, ge=0)


FILES: dict[str, type[_Written]] = {
    "evaluation.json": _Evaluation,
    "result.json": _Result,
    "stage.json": _About,
    "cost.json": _Cost,
}


def fault(name: str, content: Json) -> str | None:
    """What is wrong with the content of one of `FILES`, in words; None if it is valid."""
    try:
        FILES[name].model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return None
