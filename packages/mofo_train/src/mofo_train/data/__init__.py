"""Clips for training: which frames, decoding, crops with their boxes, and the order of the samples."""
