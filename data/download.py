"""`python -m data.download`: see data/tools/download.py."""

from configs.cli import run_script
from data.tools.download import main

if __name__ == "__main__":
    run_script(main)
