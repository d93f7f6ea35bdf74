"""`python -m truemorph` is the command `truemorph`."""

from truemorph.cli import main

if __name__ == "__main__":
    main()
