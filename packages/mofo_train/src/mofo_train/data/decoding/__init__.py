"""Source media -> chosen frames."""
