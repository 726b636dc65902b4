"""One module per subcommand of `mofo-train`; each exposes a click command named `command`."""
