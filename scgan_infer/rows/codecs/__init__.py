"""One module per file format: how its rows are read and, beside it, how they are written."""
