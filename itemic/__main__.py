"""``python -m itemic``: the command line."""

from itemic.cli import main

if __name__ == "__main__":
    main()
