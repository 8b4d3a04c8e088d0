"""`python -m scrfdkit` is the `scrfd` command."""

from scrfdkit.cli import main

if __name__ == "__main__":
    main()
