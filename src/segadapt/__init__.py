"""segadapt: adapt a semantic segmenter from a labelled domain to an unlabelled one."""

from segadapt.version import __version__

__all__ = ["__version__"]
