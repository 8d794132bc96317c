"""From rows to a run: the stages in order, and their progress."""
