"""The training loop of every stage, its guards, and training by several processes."""
