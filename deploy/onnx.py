"""ONNX files: written by torch.onnx, quantised and run by ONNX Runtime."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.metadata import KEY, Metadata, parse_metadata
from deploy.network import INPUTS, OUTPUTS, Exportable, free_sizes
from deploy.options import ExportOptions
from deploy.runtime import Runtime

DETECTIONS = "detections"
DECODER = "decoder"


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as an ONNX file with boxes and scores, or with detections if `options.nms`."""
    model = convert(network, options, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def convert(network: Exportable, options: ExportOptions, metadata: Metadata) -> onnx.ModelProto:
    """The ONNX model of a network, with the metadata."""
    height, width = metadata.imgsz
    # Two images where the batch is free: a batch of one would be specialised.
    images = torch.zeros(2 if options.dynamic else 1, 3, height, width)
    shapes = free_sizes(network, batch=not options.nms) if options.dynamic else None
    if options.nms:
        images = images[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own deprecations
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                opset_version=options.opset,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=shapes,
                verbose=False,
            )
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_nodes(model)
    if options.nms:
        _append_nms(model, metadata)
    model.metadata_props.add(key=KEY, value=metadata.to_json())
    return model


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name each node by the module it comes from, as in backbone.P3.0.act/node_mul_7, instead of its annotations.

    The exporter annotates nodes with stack traces, which hold paths of this machine and half the size of a small file.
    """
    made_by: dict[str, str] = {}  # module by the name of an output
    for node in model.graph.node:
        notes = {each.key: each.value for each in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        modules = [scope.removeprefix("model.") for scope in scopes if scope.startswith("model.")]
        # Nodes outside the network's parts are the decoder's; those that the optimiser added belong to their input's.
        given = made_by.get(node.input[0], DECODER) if not scopes and node.input else DECODER
        module = max(modules, key=len) if modules else given
        node.name = f"{module}/{node.name}"
        made_by |= dict.fromkeys(node.output, module)
    graph = model.graph
    for each in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del each.metadata_props[:]


def _append_nms(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Replace boxes and scores by `detections` (n, 6): xyxy, score, class; best first, by NMS per class.

    As models.decode.nms without `multi_label`: a box counts for its best class.
    """
    graph, nms = model.graph, metadata.nms

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"nms_{name}"))
        return f"nms_{name}"

    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        names = [f"nms_{output}" if output != DETECTIONS else output for output in outputs]
        graph.node.append(helper.make_node(kind, inputs, names, name=f"nms_node_{outputs[0]}", **attributes))
        return names[0]

    boxes, scores = OUTPUTS
    first, last = constant("first", np.array([0])), constant("last", np.array([-1]))
    best = node("ReduceMax", [scores, last], "best", keepdims=1)
    single = node(
        "Where", [node("Equal", [scores, best], "is_best"), scores, constant("no", np.array(0, np.float32))], "single"
    )
    limits = [
        constant("max_det", np.array([nms.max_det])),
        constant("iou", np.array([nms.iou], np.float32)),
        constant("conf", np.array([nms.conf], np.float32)),
    ]
    by_class = node("Transpose", [single], "by_class", perm=[0, 2, 1])
    chosen = node("NonMaxSuppression", [boxes, by_class, *limits], "chosen")  # (n, 3): image, class, box
    labels = node("Gather", [chosen, constant("class", np.array(1))], "labels", axis=1)
    rows = node("Gather", [chosen, constant("box", np.array(2))], "rows", axis=1)
    kept = node("Gather", [node("Squeeze", [boxes, first], "all_boxes"), rows], "kept_boxes", axis=0)
    flat = node("Squeeze", [best, constant("axes", np.array([0, 2]))], "all_scores")
    kept_scores = node("Gather", [flat, rows], "kept_scores", axis=0)
    count = node("Min", [node("Shape", [kept_scores], "found"), limits[0]], "count")
    node("TopK", [kept_scores, count], "top", "order", axis=0, sorted=1)
    sorted_boxes = node("Gather", [kept, "nms_order"], "sorted_boxes", axis=0)
    sorted_labels = node("Gather", [labels, "nms_order"], "sorted_labels", axis=0)
    columns = [
        sorted_boxes,
        node("Unsqueeze", ["nms_top", last], "score_column"),
        node("Unsqueeze", [node("Cast", [sorted_labels], "float_labels", to=TensorProto.FLOAT), last], "label_column"),
    ]
    node("Concat", columns, DETECTIONS, axis=1)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, ["detected", 6]))


# Activations that lose nothing in int8, by their operators in ONNX and in OpenVINO.
PIECEWISE = ("Relu", "LeakyRelu", "PRelu", "Clip", "Min", "Max", "Clamp", "Minimum", "Maximum")


def stays_float(name: str, kind: str) -> bool:
    """Whether a node computes in fp32 after quantisation: the decoder, NMS, and smooth activations.

    Coordinates need more than 256 values; the intermediate values of a formula span several powers of ten.
    """
    module = name.partition("/")[0]
    if module == DECODER or module.startswith("nms_"):
        return True
    return module.endswith(".act") and kind not in PIECEWISE


def quantise(path: Path, network: Exportable, inputs: Sequence[np.ndarray]) -> None:
    """Quantise a written file in place (QDQ, weights per channel), calibrated on `inputs`, each (1, 3, H, W)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {INPUTS[0]: image}

    before = onnx.load(path)
    text = {each.key: each.value for each in before.metadata_props}
    source = path.with_name(f"prepared-{path.name}")
    quant_pre_process(str(path), str(source), skip_symbolic_shape=True)
    prepared = onnx.load(source)
    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in prepared.graph.node if stays_float(node.name, node.op_type)],
    )
    source.unlink()
    after = onnx.load(path)
    del after.metadata_props[:]
    for key, value in text.items():
        after.metadata_props.add(key=key, value=value)
    onnx.save(after, path)


class OnnxRuntime(Runtime):
    """ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its binding derives its errors from Exception directly
            raise ValueError(f"{path}: ONNX Runtime cannot read it: {error}") from error
        self.metadata = parse_metadata(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.description = f"ONNX Runtime {onnxruntime.__version__}, CPU, {threads or 'all'} threads"

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of images (B, 3, H, W) float32 in 0..1."""
        found: list[np.ndarray] = self.session.run(None, {INPUTS[0]: images})
        return found


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a file."""
    return OnnxRuntime(path, threads=threads)
