"""`python -m forgetless`: the command line, where no script is on the path."""

from forgetless.cli import main

if __name__ == "__main__":
    main()
