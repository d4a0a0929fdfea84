"""The methods by name: what a recipe's `method:` can say, beside the stages that do not train."""

from typing import TypeVar

from segadapt.methods.adaptsegnet import AdaptSegNet
from segadapt.methods.method import Method
from segadapt.methods.se_gan import SeGan
from segadapt.methods.sean import Sean
from segadapt.methods.self_training import SelfTraining
from segadapt.methods.supervised import SourceOnly, TargetTrained
from segadapt.methods.tgstn import Tgstn

METHODS: dict[str, type[Method]] = {}
Registered = TypeVar("Registered", bound=type[Method])


def register_method(method: Registered) -> Registered:
    """Make a method known to recipes under the name that its settings have; also a decorator of its class.

    Raises ValueError when the name is taken or the settings have none.
    """
    name = str(method.settings_type.model_fields["method"].default)
    if not name.isidentifier():
        raise ValueError(f"{method.settings_type.__name__} needs `method: Literal[NAME] = NAME`")
    if name in METHODS:
        raise ValueError(f"a method named {name!r} exists already")
    METHODS[name] = method
    return method


for shipped in (SourceOnly, TargetTrained, Sean, Tgstn, SeGan, SelfTraining, AdaptSegNet):
    register_method(shipped)
