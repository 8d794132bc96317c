"""From rows to a run: the loop, the run folder, and the stages in their order."""
