"""Everything needed to write a plug-in: the contracts of methods, networks and layouts, and their building blocks.

    from segadapt.plugin import Batch, Method, SegmenterSettings, Update, register_method

docs/own-method.md, docs/own-network.md and docs/own-data.md each show a complete one.
"""

from segadapt.augment.class_mix import draw_classes, pasted_pixels
from segadapt.batch import Batch, Images
from segadapt.batch_norm import BatchNorm2d
from segadapt.data.catalog import Layout, Pair, register_layout
from segadapt.ema import teacher_of
from segadapt.losses import (
    IGNORE,
    Loss,
    cross_entropy,
    domain_loss,
    joint,
    labelled_pixels,
    masked_squared_error,
    masked_values,
    precise,
    squared_error,
)
from segadapt.methods.method import DomainName, Method, Networks, Update, frozen
from segadapt.methods.optimizers import discriminator_optimizer, make_optimizer, segmenter_optimizer
from segadapt.methods.registry import register_method
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.settings import SegmenterSettings, TrainingSettings, WithExtraSource
from segadapt.methods.teacher import TeacherSettings
from segadapt.models.discriminators import Discriminator
from segadapt.models.networks import register_network
from segadapt.models.segmenter import CAFFE, IMAGENET, TENSORFLOW, NetworkOptions, PixelFormat, Segmenter, SegOutput
from segadapt.models.style_transfer import StyleTransfer
from segadapt.noise import SampleNoise
from segadapt.sample_randomness import Dropout, Dropout2d, DropPath

__all__ = [
    "CAFFE",
    "IGNORE",
    "IMAGENET",
    "TENSORFLOW",
    "Batch",
    "BatchNorm2d",
    "Discriminator",
    "DomainName",
    "DropPath",
    "Dropout",
    "Dropout2d",
    "Images",
    "Layout",
    "Loss",
    "Method",
    "NetworkOptions",
    "Networks",
    "Pair",
    "PixelFormat",
    "SampleNoise",
    "SegOutput",
    "Segmenter",
    "SegmenterSettings",
    "StyleTransfer",
    "TeacherSettings",
    "TrainingSettings",
    "Update",
    "WithExtraSource",
    "cross_entropy",
    "discriminator_optimizer",
    "domain_loss",
    "draw_classes",
    "frozen",
    "joint",
    "labelled_pixels",
    "make_optimizer",
    "masked_squared_error",
    "masked_values",
    "pasted_pixels",
    "precise",
    "register_layout",
    "register_method",
    "register_network",
    "segmentation_loss",
    "segmenter_optimizer",
    "squared_error",
    "teacher_of",
]
