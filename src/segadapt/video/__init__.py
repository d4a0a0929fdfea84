"""Prediction on videos: sources of frames, the pipeline through networks, sinks.

    source (reading, sequence) -> flow: labels of each model -> sink (writing, folder)

PyAV is an optional package: `library.need_av` first, then `reading` and `writing`, which import it.
"""
