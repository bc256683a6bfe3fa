"""Core ML packages (.mlpackage): converted by coremltools from torch.export. They run on Apple's systems, not here.

From TorchScript, coremltools 9.0 cannot convert the sizes of maps beside NumPy 2.4: its int() takes no array.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import coremltools
import torch
from torch import Tensor

from deploy.metadata import KEY, Metadata
from deploy.network import INPUTS, OUTPUTS, Exportable
from deploy.options import ExportOptions


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as a package, an ML program for iOS 16 and macOS 13 on; check its interface."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    images = torch.zeros(1, 3, *metadata.imgsz)
    matmul = torch.ops.aten.matmul.default
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (images,)).run_decompositions({matmul: _matmul})
        precision = coremltools.precision.FLOAT16 if options.half else coremltools.precision.FLOAT32
        model = coremltools.convert(
            program,
            inputs=[coremltools.TensorType(name=INPUTS[0], shape=images.shape)],
            outputs=[coremltools.TensorType(name=name) for name in OUTPUTS],
            compute_precision=precision,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
    model.user_defined_metadata[KEY] = metadata.to_json()
    model.save(str(path))
    spec = coremltools.utils.load_spec(str(path))
    found = [each.name for each in spec.description.output]
    if found != OUTPUTS:
        raise ValueError(f"the package has outputs {', '.join(found)}, expected {', '.join(OUTPUTS)}")


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """The product with a vector as the sum that it is: Core ML multiplies by matrices only."""
    return (x * y).sum(-1) if y.ndim == 1 else x @ y
