"""From a run to a bundle: graphs, parity, card."""
