"""Presets of the extraction, one TOML file each."""
