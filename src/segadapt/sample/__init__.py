"""Two generated domains of one street world, for the demo, the tests and first steps: see docs/sample-domains.md."""

from segadapt.sample.domains import DOMAINS, SAMPLE_VERSION, sample_pair
from segadapt.sample.writer import SampleSummary, write_sample

__all__ = ["DOMAINS", "SAMPLE_VERSION", "SampleSummary", "sample_pair", "write_sample"]
