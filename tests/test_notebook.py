"""The notebook of examples/ runs from top to bottom, in an empty folder."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples/training.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5 and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    (tmp_path / "examples").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path / "examples")}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = {kind for output in shown for kind in output.get("data", ())}
    assert {"text/html", "image/png"} <= kinds  # the run with its curves, the picture of a result
    text = "".join(output.get("text", "") for output in shown)
    assert "mAP50-95" in text and "epoch 3/3" in text
    (run,) = [output.data["text/html"] for output in shown if "<img" in output.get("data", {}).get("text/html", "")]
    assert "finished after 3 epochs" in run and run.count("data:image/png") == 1
    folder = tmp_path / "runs/train/notebook"
    assert (folder / "weights/best.pt").is_file() and (tmp_path / "runs/train/tuned/weights/best.pt").is_file()
    assert not any("ipynb" in path.name for path in (ROOT / "examples").iterdir() if path != NOTEBOOK)
