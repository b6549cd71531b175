"""Run the command `unitune` as ``python -m unitune``."""

from unitune.main import main

main()
