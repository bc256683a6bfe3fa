"""train.py without pictures, which take most of the time of a short run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

import train
from configs.cli import run_script
from tests.support.training import leave_out_pictures

if __name__ == "__main__":
    leave_out_pictures(pytest.MonkeyPatch())
    run_script(train.main)
