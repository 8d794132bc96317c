"""The command line `scgan`; imports no torch."""

from scgan_train.app.main import app, main

__all__ = ["app", "main"]
