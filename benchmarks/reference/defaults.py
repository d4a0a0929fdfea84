"""PyTorch as it is when nobody has told it anything, whatever segadapt's runtime has chosen."""

from contextlib import AbstractContextManager

import torch


def pytorch_defaults() -> AbstractContextManager[None]:
    """Context with cuDNN's default flags: kernels by heuristics, TF32 convolutions allowed."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True)
