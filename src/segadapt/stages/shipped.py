"""The kinds of stages that ship with segadapt: importing this file registers them, and one for each method."""

from segadapt.stages.evaluate import Evaluate
from segadapt.stages.pseudo_labels import PseudoLabels
from segadapt.stages.registry import FAMILIES, KINDS, kind_of, kinds_of, quirks_of, register_stage, stage_kinds
from segadapt.stages.stylize import Stylize
from segadapt.stages.train import trainings

__all__ = ["KINDS", "kind_of", "kinds_of", "quirks_of", "register_stage", "stage_kinds"]

FAMILIES.append(trainings)
for shipped in (Stylize(), PseudoLabels(), Evaluate()):
    register_stage(shipped)
