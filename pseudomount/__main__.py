"""`python -m pseudomount` is the command line."""

from pseudomount.cli import main

if __name__ == "__main__":
    main()
