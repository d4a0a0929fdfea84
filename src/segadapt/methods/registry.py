"""The methods by name: the values of a recipe's `method:`, apart from stages that do not train."""

import inspect
from typing import TypeVar

from segadapt.methods.adaptsegnet import AdaptSegNet
from segadapt.methods.cbst import Cbst
from segadapt.methods.dacs import Dacs
from segadapt.methods.daformer import Daformer
from segadapt.methods.method import Method
from segadapt.methods.mic import Mic
from segadapt.methods.se_gan import SeGan
from segadapt.methods.sean import Sean
from segadapt.methods.self_training import SelfTraining
from segadapt.methods.settings import TrainingSettings
from segadapt.methods.supervised import SourceOnly, TargetTrained
from segadapt.methods.tgstn import Tgstn
from segadapt.methods.vfm_uda import VfmUda

METHODS: dict[str, type[Method]] = {}
TAKEN: set[str] = set()
"""Names that recipes have for kinds of stages that do not train."""
Registered = TypeVar("Registered", bound=type[Method])


def register_method(method: Registered) -> Registered:
    """Make a method available to recipes under the name in its settings; can be used as a class decorator.

    A class that is redefined, as in a notebook, replaces its previous version. Raises ValueError for an incomplete
    method, and if the name is taken.
    """
    name = _name_of(method)
    before = METHODS.get(name)
    same = before is not None and (before.__module__, before.__qualname__) == (method.__module__, method.__qualname__)
    if name in TAKEN or (before is not None and not same):
        raise ValueError(f"a method named '{name}' already exists")
    METHODS[name] = method
    return method


def _name_of(method: type[Method]) -> str:
    """The name in a method's settings. Raises ValueError for an incomplete method."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ValueError(f"{method!r} is not a subclass of segadapt.plugin.Method")
    if inspect.isabstract(method):
        raise ValueError(f"method {method.__name__} lacks {' and '.join(sorted(method.__abstractmethods__))}")
    settings = getattr(method, "settings_type", None)
    if not (isinstance(settings, type) and issubclass(settings, TrainingSettings)):
        raise ValueError(f"method {method.__name__} needs `settings_type`, a subclass of SegmenterSettings")
    if not set(getattr(method, "domains", ())) & {"source", "target"}:
        raise ValueError(f'method {method.__name__} needs `domains`, as ("source", "target")')
    field = settings.model_fields.get("method")
    name = None if field is None else field.default
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{settings.__name__} needs `method: Literal[NAME] = NAME`, its name in recipes")
    return name


SHIPPED = (
    SourceOnly, TargetTrained, Sean, Tgstn, SeGan, SelfTraining, Cbst, AdaptSegNet, Dacs, Daformer, Mic, VfmUda
)  # fmt: skip
for shipped in SHIPPED:
    register_method(shipped)
