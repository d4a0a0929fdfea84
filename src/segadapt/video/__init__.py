"""Videos in, predictions out: what is read, how frames go through networks, what is written.

    source (reading, sequence) -> flow: labels of each model -> sink (writing, folder)

PyAV is an optional package: `library.need_av` first, then `reading` and `writing`, which import it.
"""
