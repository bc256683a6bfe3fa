"""What OpenVINO computes for each form of Mish."""

from pathlib import Path

import pytest
import torch

from deploy.options import MISH_FORMS, MishForm
from models.activations import ACTIVATION_NAMES
from ops.mish import reference
from tests.support.exports import run_everything


@pytest.mark.slow
@pytest.mark.parametrize("form", MISH_FORMS)
def test_mish_is_right_from_far_below_to_far_above(form: MishForm, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    x, found = run_everything("openvino", form, tmp_path)
    mish = found[ACTIVATION_NAMES.index("mish")].double()
    torch.testing.assert_close(mish, reference(x), rtol=3e-7, atol=2e-6)
