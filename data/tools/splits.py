"""The splits that a data set has, for tools that read all of them."""

from configs.loading import CONFIGS, load_data
from configs.schema import Data, load
from data import SPLITS


def read_splits(data: str) -> tuple[Data, list[str]]:
    """The data set and the names of its splits; it may be without a validation split, to be held out of train."""
    config = load(CONFIGS / "yolo.yaml", {"data": data, "train.holdout": 0.1}).data  # without val, that is train's
    given = load_data(data)
    return config, [name for name in SPLITS if given.get(name) is not None]
