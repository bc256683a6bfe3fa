"""TensorRT engines (.engine): built from ONNX by TensorRT, for the GPU they are built on.

Written by its documentation and never run: no machine of this project's tests has TensorRT.
"""

from __future__ import annotations

import json
from pathlib import Path

import tensorrt

from deploy import onnx as onnx_files
from deploy.metadata import Metadata
from deploy.network import Exportable
from deploy.options import ExportOptions


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Build an engine of fixed size; the metadata are in a file beside it, NAME.engine.json."""
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    definition = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(definition, logger)
    if not parser.parse(onnx_files.convert(network, options, metadata).SerializeToString()):
        raise ValueError("; ".join(parser.get_error(k).desc() for k in range(parser.num_errors)))
    engine = builder.build_serialized_network(definition, builder.create_builder_config())
    if engine is None:
        raise ValueError("TensorRT built no engine")
    path.write_bytes(bytes(engine))
    path.with_name(f"{path.name}.json").write_text(json.dumps(json.loads(metadata.to_json())), encoding="utf-8")
