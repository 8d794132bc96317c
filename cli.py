"""Run the command line from a checkout: `python cli.py ...` is `scgan ...`."""

from scgan_train.app import main

if __name__ == "__main__":
    main()
