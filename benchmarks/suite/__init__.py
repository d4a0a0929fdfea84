"""The parts of the benchmarks: what is timed, on what inputs, how, and how it is shown."""
