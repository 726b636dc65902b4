"""When guidance pays: its gain against the size of the action, the inside ratio and the quality of areas."""
