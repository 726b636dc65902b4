"""Data sets: one module each turns annotation files into a manifest; `synthetic` draws its own videos."""
