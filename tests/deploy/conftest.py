"""Networks to export."""

import pytest

from tests.models.darknet.cfgs import DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from yolo import YOLO


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, YOLO]:
    """A small network of each family; that of the project has a Swish whose beta is learned."""
    folder = tmp_path_factory.mktemp("models")
    act = {"name": "swish", "beta": 1.3, "learnable": True}
    data = write_data(folder)
    write_checkpoint(
        folder / "best.pt", data, class_names(folder / "shapes"), **{"model.levels": [2, 3], "model.act": act}
    )
    (folder / "x.cfg").write_text(DETECTOR_6)
    (folder / "x.weights").write_bytes(weights(values(count(DETECTOR_6), seed=1)))
    darknet = YOLO(folder / "x.weights", cfg=folder / "x.cfg", device="cpu")
    return {"yolo": YOLO(folder / "best.pt", device="cpu"), "darknet": darknet}
