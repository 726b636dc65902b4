"""Crops that the device makes of clips as they were decoded, so that workers have less to do."""
