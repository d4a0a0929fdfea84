"""What segadapt is measured against: the published programs' way of doing things, plain float32 and eager.

Written by hand from the papers and from what the published programs are known to do; only the network modules are
segadapt's, whose forward passes are the published ones. Nothing here is fast on purpose, and nothing is slow on
purpose: PyTorch's default options, no loader processes, no autocast, no channels-last, one thing after another.
"""
