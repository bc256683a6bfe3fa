"""What OpenVINO computes for each form of Mish."""

from pathlib import Path

import pytest
import torch

from deploy.network import Exportable
from deploy.options import MISH_FORMS, ExportOptions, MishForm
from models.activations import ACTIVATION_NAMES
from ops.mish import reference
from tests.deploy.test_onnx import METADATA, Everything


@pytest.mark.slow
@pytest.mark.parametrize("form", MISH_FORMS)
def test_mish_is_right_from_far_below_to_far_above(form: MishForm, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from deploy.openvino import open_file, write_file

    x = torch.linspace(-100, 100, 1200).view(1, 3, 20, 20)
    network = Exportable(Everything(), mish=form, dtype=torch.float32)  # type: ignore[arg-type]
    write_file(network, tmp_path / "all_openvino", ExportOptions(), METADATA)
    found = open_file(tmp_path / "all_openvino", threads=1).run(x.numpy())[0]
    mine = torch.from_numpy(found[ACTIVATION_NAMES.index("mish")]).double()
    torch.testing.assert_close(mine, reference(x), rtol=3e-7, atol=2e-6)
