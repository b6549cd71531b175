"""Run the command `unitune` as ``python -m unitune``."""

from unitune.cli.main import main

main()
