"""``python -m edxdenoise``."""

from edxdenoise.cli import main

main(prog_name="edxdenoise")
