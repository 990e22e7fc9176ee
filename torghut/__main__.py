"""`python -m torghut`: the same as the console script."""

from torghut.cli import main

if __name__ == "__main__":
    main()
