"""The recipes that come with the package: `<dataset>_<stage>_<model>_<variant>.toml`."""
