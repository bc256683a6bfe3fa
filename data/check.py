"""`python -m data.check`: see data/tools/check.py."""

from configs.cli import run_script
from data.tools.check import main

if __name__ == "__main__":
    run_script(main)
