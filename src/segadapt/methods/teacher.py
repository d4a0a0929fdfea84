"""What methods with a mean teacher share: the decay of its moving average (Tarvainen and Valpola, NeurIPS 2017)."""

from pydantic import Field

from segadapt.ema import warmed_up
from segadapt.methods.settings import SegmenterSettings


class TeacherSettings(SegmenterSettings):
    """Settings of methods whose result is a mean teacher."""

    ema: float = Field(0.999, ge=0, lt=1, description="α: decay of the teacher's moving average")
    ema_warmup: bool = Field(True, description="use min(α, 1 - 1/(step + 1)) instead of α")

    def decay(self, step: int) -> float:
        """The teacher's decay after the update of this step."""
        return warmed_up(self.ema, step) if self.ema_warmup else self.ema
