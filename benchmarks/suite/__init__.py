"""The pieces of the benchmarks: what is timed, on what inputs, how, and how it is shown."""
