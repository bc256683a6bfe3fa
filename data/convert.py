"""`python -m data.convert`: see data/tools/convert.py."""

from configs.cli import run_script
from data.tools.convert import main

if __name__ == "__main__":
    run_script(main)
