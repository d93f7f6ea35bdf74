"""python -m truemorph.cli, as processes start that train together."""

from truemorph.cli import main

main()
