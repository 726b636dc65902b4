"""Annotation files of data sets -> manifest tables, one module per data set."""
