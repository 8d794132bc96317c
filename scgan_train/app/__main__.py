"""`python -m scgan_train.app ...` is `scgan ...`."""

from scgan_train.app import main

main()
