"""What everything that runs stands on: ranks, checkpoints, number formats, seeds, the folder of a run and its log."""
