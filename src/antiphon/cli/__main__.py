"""`python -m antiphon.cli` is `antiphon`."""

from antiphon.cli import main

main()
