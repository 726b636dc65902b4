"""Clip lists that people already have -> the `annotations.csv` of the `folder` data set.

In the order of the data: `lines` (text -> lines -> tokens), `fields` (tokens -> path, name, numbers), `clips` (what the
numbers mean), `headed` (lists that name their columns), `importing` (several lists -> one file).
"""
