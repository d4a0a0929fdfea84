"""`--quiet` and `--verbose`, for every verb: what is told before, after, and about errors."""

import logging
import platform
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from segadapt.errors import UsageError
from segadapt.verbosity import set_level, verbose
from segadapt.version import __version__


def begin_telling(flags: Collection[str]) -> None:
    """Set how much this command tells. Raises UsageError for both flags at once."""
    if {"--quiet", "--verbose"} <= set(flags):
        raise UsageError("and --verbose cannot be combined", where="--quiet", remedy="Leave one of them out.")
    set_level("quiet" if "--quiet" in flags else "verbose" if "--verbose" in flags else "usual")
    if verbose():
        logging.getLogger().addHandler(_LOG)
        logging.getLogger().setLevel(logging.INFO)
        warnings.simplefilter("default")
    else:  # in one process a command may come after a verbose one
        logging.getLogger().removeHandler(_LOG)


class _Log(logging.Handler):
    """What libraries log, on stderr as it is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


_LOG = _Log()
_LOG.setFormatter(logging.Formatter("%(name)s: %(message)s"))


@contextmanager
def accounted(arguments: Sequence[str]) -> Iterator[None]:
    """With --verbose: a line about the versions before a command, and one about what it has cost after it."""
    if not verbose() or not arguments:
        yield
        return
    began = time.perf_counter()
    print(f"segadapt {__version__}, Python {platform.python_version()}, {platform.platform()}", file=sys.stderr)
    try:
        yield
    finally:
        torch = sys.modules.get("torch")
        with_torch = "" if torch is None else f", PyTorch {torch.__version__}"
        print(f"took {time.perf_counter() - began:.1f} s, {_memory()}{with_torch}", file=sys.stderr)


def tell_causes(error: BaseException) -> None:
    """With --verbose: what has led to an error, the nearest cause first."""
    cause = error.__cause__ or error.__context__
    while verbose() and cause is not None:
        first = (str(cause).splitlines() or [""])[0]
        print(f"caused by {type(cause).__name__}: {first}", file=sys.stderr)
        cause = cause.__cause__ or cause.__context__


def _memory() -> str:
    """The most memory that the process has had."""
    try:
        import resource
    except ImportError:  # Windows
        return "memory not known"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"at most {most / 1e9:.2f} GB of memory"
