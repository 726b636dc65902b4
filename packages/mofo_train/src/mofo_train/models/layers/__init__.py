"""Layers of the transformers: linear maps, also in 8 bits, and attention, as each device computes them best."""
