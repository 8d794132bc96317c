"""From rows to a run: the stages in their order, and what they say of themselves."""
