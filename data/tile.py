"""`python -m data.tile`: see data/tools/tile.py."""

from configs.cli import run_script
from data.tools.tile import main

if __name__ == "__main__":
    run_script(main)
