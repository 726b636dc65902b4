"""One module per subcommand of `motionbox`; each exposes a click command named `command`."""
