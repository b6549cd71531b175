"""``python -m unitune`` is the command `unitune`."""

from unitune.cli.main import main

main()
