"""The kinds of input that fuzz.py damages: writing, damaging and reading them, and checks of the result."""

import copy
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from configs.loading import flatten
from configs.schema import Config, DarknetModel, load
from core.types import Targets
from data import load_dataset
from data.annotations import Annotations
from data.augment import Augmentation
from data.coco import read_coco
from data.conversion import convert_splits
from data.image import decode_image, verify_image
from data.image_files import list_images
from data.issues import KINDS as ISSUE_KINDS
from data.limits import MAX_PIXELS
from data.loader import collate
from data.samples import TrainSamples
from data.tools.convert import find_sections
from data.verify import verify_images
from engine.checkpoint import inference_weights, load_checkpoint, load_matching, save_checkpoint
from engine.evaluation.ground_truth import GroundTruth
from models import build_model, resolve_activations
from models.darknet.adapt import for_classes, for_side, require_trainable
from models.darknet.graph import plan_network
from models.darknet.weights import check_other_classes, check_weights, read_weights, write_weights
from tests.models.darknet.cfgs import CLASSIFIER, DETECTOR, values, weights
from tests.models.darknet.oracle import count
from tests.stress.mutations import VALUES, as_json, as_yaml, mutate_bytes, mutate_text, mutate_tree
from yolo import YOLO

SIDE = 32


class Violation(Exception):
    """A result violates a requirement."""


class Kind(Protocol):
    """A kind of input.

    `named` are words of which a refusal holds one, so that it says where the fault is; `loud` is whether libraries in
    other languages may write to stderr of their own (libpng, libjpeg and libtiff do).
    """

    named: tuple[str, ...]
    loud: bool

    def __init__(self, folder: Path) -> None: ...

    def case(self, rng: random.Random) -> None:
        """Damage, read and check one input."""


def require(holds: bool, what: str) -> None:
    """Raise Violation unless a condition holds."""
    if not holds:
        raise Violation(what)


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Require a ValueError that contains one of the words."""
    try:
        yield
    except ValueError as error:
        require(any(word in str(error) for word in words), f"the refusal does not say where: {error}")


def write_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Write three small noise images; return name -> (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    sizes = {"a.png": (24, 16), "b.jpg": (16, 30), "c.png": (20, 20)}
    for name, (width, height) in sizes.items():
        Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
    return sizes


def coco_content(sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Annotations of these images with all COCO fields: areas, crowds, polygons."""
    outline = [[2, 3, 12, 3, 12, 13, 2, 13]]
    images = [{"id": k, "file_name": n, "width": w, "height": h} for k, (n, (w, h)) in enumerate(sizes.items(), 1)]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 3, 10, 10], "area": 90.5, "segmentation": outline},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [1.5, 2, 12, 9], "area": 108, "iscrowd": 0},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 3,
            "bbox": [0, 0, 16, 30],
            "iscrowd": 1,
            "segmentation": {"counts": [1]},
        },
        {"id": 4, "image_id": 2, "category_id": 3, "bbox": [-3, -3, 9, 9], "area": 81},
        {"id": 5, "image_id": 3, "category_id": 7, "bbox": [2, 2, 10, 11], "segmentation": [[2, 2, 12, 2, 12, 13]]},
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}],
    }


class AnnotationFiles:
    """COCO JSON, read up to a training sample and the ground truth of an evaluation."""

    named = ("annotations.json", "images")
    loud = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = coco_content(write_images(folder / "images"))
        self.text = json.dumps(self.content)
        self.augmentation = Augmentation(mosaic=0.5, mixup=0.3, flip_lr=0.5, degrees=5, scale=0.5, translate=0.1)

    def case(self, rng: random.Random) -> None:
        """Damage the text or the structure."""
        path = self.folder / "annotations.json"
        if rng.random() < 0.4:
            path.write_bytes(mutate_text(self.text, rng))
        else:
            path.write_text(as_json(mutate_tree(self.content, rng)), encoding="utf-8")
        annotations = read_coco(path, self.folder / "images", polygons=rng.random() < 0.9, progress=False)
        self.check(annotations)
        usable = verify_images(annotations, progress=False)
        self.check(usable)
        require((usable.sizes > 0).all(), "the size of a verified image is not known")
        index = rng.randrange(len(usable))
        samples = TrainSamples(usable, imgsz=SIDE, seed=rng.randrange(99), augmentation=self.augmentation)
        batch = collate([samples.sample(0, index), samples.sample(1, index)], annotations=usable)
        require(batch.images.shape == (2, 3, SIDE, SIDE), f"a batch has the shape {tuple(batch.images.shape)}")
        boxes, labels = batch.targets.boxes, batch.targets.labels
        require(bool(((boxes >= 0) & (boxes <= SIDE)).all()), "a training box leaves its image")
        require(bool(((labels >= 0) & (labels < len(usable.classes))).all()), "a label beyond the classes")
        truth = GroundTruth.from_annotations(usable)
        require(len(truth.boxes) == len(usable.boxes) and len(truth.image_ids) == len(usable), "truth of other length")

    def check(self, found: Annotations) -> None:
        """What must hold of loaded annotations."""
        count, boxes = len(found), found.boxes
        require(count > 0 and len(found.classes) == len(found.category_ids) > 0, "no image or no class")
        require(len(set(found.image_ids)) == count, "image ids that are not unique")
        require(found.starts[0] == 0 and found.starts[-1] == len(boxes), "starts that do not span the boxes")
        require((np.diff(found.starts) >= 0).all(), "starts that go back")
        require(bool(np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()), "a box without a size")
        require(bool(((found.labels >= 0) & (found.labels < len(found.classes))).all()), "a label beyond the classes")
        require(bool(np.isfinite(found.areas).all() and (found.areas >= 0).all()), "an area that is none")
        require({issue.kind for issue in found.issues} <= set(ISSUE_KINDS), "an unknown kind of issue")
        inside = os.path.abspath(found.image_folder) + os.sep
        for index, path in enumerate(found.paths):
            require(os.path.abspath(path).startswith(inside), "a path leads out of the folder of images")
            corners, labels, rows = found.training_boxes(index)
            require(len(corners) == len(labels) == len(rows) and bool(np.isfinite(corners).all()), "training boxes")
            for row in rows.tolist():
                require(all(np.isfinite(outline).all() for outline in found.polygons(row)), "an outline of no numbers")
        json.dumps(found.coco_dict(), allow_nan=False).encode()
        " ".join([*found.classes, *found.file_names, *map(str, found.issues)]).encode()
        require(int(found.class_counts().sum()) == int((~found.crowd).sum()), "class counts of another sum")
        require(len(found.without([0])) == count - 1, "an image more or less is left out")
        one = (
            found.as_single_class().relabelled(["object"], found.category_ids[:1]) if len(found.classes) > 1 else found
        )
        require(len(one.classes) == 1 and not one.labels.any(), "more than one class is left of one")


CONFIG = {
    "model": {
        "kind": "yolo",
        "size": "n",
        "act": {"name": "swish", "beta": 1.5, "learnable": True},
        "backbone": {"act": "mish", "stages": {"P4": {"act": "relu"}}},
        "neck": {"stages": {"N3": {"act": {"name": "leaky_relu", "negative_slope": 0.1}}}},
        "reg_max": 16,
        "loss": {"box": 7.5, "cls": 0.5},
    },
    "train": {"epochs": 3, "imgsz": 64, "batch": 2, "lr": 0.01, "warmup": 0.1, "freeze": ["backbone"], "seed": 1},
    "val": {"conf": 0.01, "max_det": 100},
    "augment": {"mosaic": 0.5, "hsv_h": 0.1, "extra": [{"name": "RandomFog", "p": 0.1}]},
    "run": {"project": "runs/train", "name": "exp", "exist_ok": False},
    "data": {
        "root": ".",
        "train": {"images": "i", "annotations": "a.json"},
        "val": {"images": "i", "annotations": "b"},
    },
}


class Configs:
    """Configs and command-line settings, resolved up to the activation of each stage."""

    named = (
        "/etc/passwd",
        "c.yaml",
        "command line",
        "model.",
        "train.",
        "val.",
        "augment.",
        "run.",
        "data",
        "weights",
        "--set",
        "YAML",
    )
    loud = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / "c.yaml"
        self.leaves = sorted(flatten(CONFIG))

    def case(self, rng: random.Random) -> None:
        """Damage the text, the structure, or a setting of the command line."""
        sections = rng.sample([key for key in CONFIG if key != "data"], 2)
        tree = {key: CONFIG[key] for key in (*sections, "data")}
        lines = "\n".join(f"{key}: {as_yaml(value)}" for key, value in tree.items())
        kind, settings = rng.random(), []
        if kind < 0.35:
            self.path.write_bytes(mutate_text(lines, rng))
        elif kind < 0.8:
            self.path.write_text(as_yaml(mutate_tree(tree, rng)), encoding="utf-8")
        else:
            self.path.write_text(lines)
            value = (
                as_yaml(rng.choice(VALUES)) if rng.random() < 0.3 else rng.choice(("mish", "relu", "true", "64", "0.5"))
            )
            setting = f"{rng.choice(self.leaves)}={value}"
            settings = [mutate_text(setting, rng).decode("utf-8", "replace") if rng.random() < 0.3 else setting]
        self.check(load(self.path, settings), round_trip=rng.random() < 0.3)

    def check(self, config: Config, *, round_trip: bool) -> None:
        """What must hold of a config that was read."""
        train = config.train
        require(train.epochs is not None and train.imgsz is not None and train.imgsz % 32 == 0, "open values are left")
        require(train.lr > 0 and 0 <= train.momentum < 1 and train.seed < 2**63, "a value out of range")
        paths = [config.data.root, config.data.train.images, config.data.val.annotations]
        require(all(os.path.isabs(path) for path in paths), "a path that is not absolute")
        resolve_activations(config.model)
        if round_trip:
            text = config.as_yaml()
            self.path.write_text(text, encoding="utf-8")
            require(load(self.path) == config, "the written config is read as another")


class DataFiles:
    """Data YAMLs, read up to the annotations, and YOLO data YAMLs for data.tools.convert."""

    named = ("d.yaml", "data", "images", "annotations", "c.yaml")
    loud = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sizes = write_images(folder / "images")
        (folder / "a.json").write_text(json.dumps(coco_content(sizes)))
        self.config = folder / "c.yaml"
        self.config.write_text("train: {epochs: 1}\n")
        split = {"images": "images", "annotations": "a.json"}
        # Would search a whole disk for images, as requested.
        self.values = tuple(value for value in VALUES if value not in ("/", "..", "../../up.png"))
        self.ours = {"root": str(folder), "train": split, "val": split, "test": copy.deepcopy(split)}
        (folder / "labels").mkdir()
        self.labels = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.9\n"
        (folder / "list.txt").write_text("./images/a.png\nimages/b.jpg\n")
        self.theirs = {
            "path": str(folder),
            "train": "images",
            "val": ["list.txt"],
            "nc": 2,
            "names": {0: "cat", 1: "dog"},
        }

    def case(self, rng: random.Random) -> None:
        """Damage a data YAML, or the labels of an image."""
        ours = rng.random() < 0.5
        path = self.folder / "d.yaml"
        tree = self.ours if ours else self.theirs
        (self.folder / "labels" / "a.txt").write_text(self.labels)
        if rng.random() < 0.4:
            path.write_bytes(mutate_text("\n".join(f"{key}: {as_yaml(value)}" for key, value in tree.items()), rng))
        elif ours or rng.random() < 0.7:
            path.write_text(as_yaml(mutate_tree(tree, rng, values=self.values)), encoding="utf-8")
        else:
            path.write_text(as_yaml(tree))
            (self.folder / "labels" / "a.txt").write_bytes(mutate_text(self.labels, rng))
        if ours:
            data = load(self.config, {"data": str(path)}).data
            if data.embedded is None:  # it would be drawn first
                require(len(load_dataset(data, "train", progress=False)) == 3, "images got lost")
            return
        _, sections = find_sections(path)
        require(set(sections) <= {"train", "val", "test"}, "a split of another name")
        if any(len(list_images(section.images)[0]) > 20 for section in sections.values()):
            return  # another root may contain many images
        for each in convert_splits(sections, progress=False).values():
            json.dumps(each.content, allow_nan=False)
            require({issue.kind for issue in each.issues} <= set(ISSUE_KINDS), "an unknown kind of issue")
            names = [category["name"] for category in each.content["categories"]]
            require(len(names) <= 10_000 and all(isinstance(name, str) for name in names), "class names that are none")
            for fields in each.content["annotations"]:
                require(0 <= fields["category_id"] < len(names) and min(fields["bbox"][2:]) > 0, "an annotation")


class Harm:
    """Unpickles to a call that creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (self.path,)

    def __deepcopy__(self, memo: dict) -> "Harm":
        return self  # copying would otherwise unpickle it


class Checkpoints:
    """Checkpoints: damaged files, damaged archive members, other contents, and code."""

    named = ("c.pt",)
    loud = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.harmed = folder, folder / "c.pt", folder / "harmed"
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        config = load("yolo.yaml").model_dump(mode="json")
        weights = self.model.state_dict()
        state = {"epoch": 1, "batch": 0, "step": 2, "best": 0.5, "best_epoch": 1, "rows": [{"epoch": 1, "x": None}]}
        self.content = {
            "kind": "training",
            "config": config,
            "names": ["cat", "dog"],
            "census": [{"part": "head", "stage": "P3", "activation": "mish", "parameters": {}, "sites": 4}],
            "model": weights,
            "ema": {"model": {name: value.clone() for name, value in weights.items()}, "updates": 3},
            "optimizer": {
                "state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.ones(4, 3, 1, 1)}},
                "param_groups": [],
            },
            "scaler": {},
            "state": {**state, "loss_sums": torch.zeros(4), "batches_crc32": 7},
            "clock": {"total": {"train": 1.5}},
            "rng": {"cpu": torch.get_rng_state(), "cuda": []},
            "data_sha256": {"train": "0", "val": "1"},
        }
        save_checkpoint(self.path, self.content)
        self.whole = self.path.read_bytes()
        with zipfile.ZipFile(self.path) as archive:
            self.records = {entry.filename: archive.read(entry) for entry in archive.infolist()}

    def case(self, rng: random.Random) -> None:
        """Damage the file, a record of it, or what it holds."""
        kind = rng.random()
        if kind < 0.25:
            self.path.write_bytes(mutate_bytes(self.whole, rng))
        elif kind < 0.6:
            self._rewrite(rng)
        else:
            self._other_content(rng)
        try:
            content = load_checkpoint(self.path, kind=rng.choice((None, None, "training", "weights")))
            self.check(content)
            if rng.random() < 0.05:  # too few weights for any detector
                with refused("c.pt", "model."):
                    YOLO(self.path, device="cpu")
                    raise Violation("a detector was made of the weights of another network")
        finally:
            if self.harmed.exists():
                self.harmed.rmdir()
                raise Violation("the code in a checkpoint was run")

    def _rewrite(self, rng: random.Random) -> None:
        """A whole archive with right checksums whose structure or records are damaged."""
        records = dict(self.records)
        structure = next(name for name in records if name.endswith("/data.pkl"))
        name = structure if rng.random() < 0.8 else rng.choice(list(records))
        kind = rng.random()
        if kind < 0.8:
            records[name] = mutate_bytes(records[name], rng, most=2)
        elif kind < 0.9:
            del records[name]
        else:
            records[
                rng.choice(("archive/data/999", "archive/code.py", "../up", "other/data.pkl", "archive/constants.pkl"))
            ] = b"x"
        method = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
        with zipfile.ZipFile(self.path, "w", method) as archive:
            for each, data in records.items():
                archive.writestr(each, data)

    def _other_content(self, rng: random.Random) -> None:
        """torch.save of a structure that was changed."""
        values = (
            *(
                value
                for value in VALUES
                if not isinstance(value, int) or isinstance(value, bool) or abs(value) < 2**200
            ),
            *(torch.zeros(()), torch.zeros(0), torch.zeros(2, 3), torch.ones(4, dtype=torch.float64)),
            *(torch.zeros(4, dtype=torch.int8), torch.zeros(4, dtype=torch.complex64), torch.full((4,), float("nan"))),
            *(torch.zeros(1).expand(10**12), torch.zeros(4, dtype=torch.bfloat16), nn.Parameter(torch.zeros(4))),
            *(torch.empty(10**12, device="meta"), torch.eye(3).to_sparse(), torch.device("cpu"), torch.float32),
            *(Harm(str(self.harmed)), {1, 2}, b"bytes", bytearray(9), complex(1, 2), (1, (2, (3,)))),
        )
        content = mutate_tree({"format": 1, **self.content}, rng, values=values)
        if rng.random() < 0.02:
            bomb: Any = []
            for _ in range(rng.choice((20, 60))):
                bomb = [bomb, bomb]
            content["state"] = bomb
        buffer = io.BytesIO()
        try:
            torch.save(content, buffer)
        except (UnicodeError, RecursionError):  # skip what cannot be written
            torch.save({}, buffer)
        self.path.write_bytes(buffer.getvalue())

    def check(self, content: dict[str, Any]) -> None:
        """What must hold of a checkpoint that was loaded: every tensor has its numbers, the rest is plain."""
        waiting: list[Any] = [content]
        total = 0
        while waiting:
            value = waiting.pop()
            if isinstance(value, torch.Tensor):
                require(value.is_cpu and value.layout == torch.strided, "a tensor that is not plain")
                require(value.untyped_storage().nbytes() >= value.numel() * value.element_size(), "an empty tensor")
                total += value.numel() * value.element_size()
                value.double().sum() if not value.is_complex() else None
            elif isinstance(value, dict | list | tuple):
                require(type(value) in (dict, list, tuple), f"a {type(value).__name__}")
                waiting += value.values() if isinstance(value, dict) else value
            else:
                require(value is None or type(value) in (bool, int, float, str), f"a {type(value).__name__}")
        require(total <= 2 * self.path.stat().st_size, "more bytes than the file has")
        loaded, missing = load_matching(copy.deepcopy(self.model), inference_weights(content))
        require(
            len(loaded) + len(missing) == len(self.model.state_dict()), "weights that are neither loaded nor missing"
        )


class Images:
    """Image files of all supported formats, decoded and verified."""

    named = ()
    loud = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "image"
        pixels = np.random.default_rng(0).integers(0, 255, (20, 28, 3), dtype=np.uint8)
        image, exif = Image.fromarray(pixels), Image.Exif()
        exif[0x0112] = 6
        layer = np.dstack([pixels, pixels[..., :1]])
        forms: list[tuple[Image.Image, str, dict[str, Any]]] = [
            (image, "JPEG", {"exif": exif}),
            (image, "JPEG", {"progressive": True}),
            (image.convert("CMYK"), "JPEG", {}),
            (image, "PNG", {}),
            (Image.fromarray(layer), "PNG", {}),
            (image.quantize(8), "PNG", {"transparency": 1}),
            (Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), "PNG", {}),
            (image, "BMP", {}),
            (image.quantize(8), "GIF", {}),
            (image, "TIFF", {}),
            (image, "TIFF", {"compression": "tiff_lzw"}),
            (image, "PPM", {}),
            (image, "WEBP", {}),
            (image.convert("1"), "PNG", {}),
        ]
        self.files = []
        for picture, kind, options in forms:
            buffer = io.BytesIO()
            picture.save(buffer, kind, **options)
            self.files.append(buffer.getvalue())

    def case(self, rng: random.Random) -> None:
        """Damage the bytes, those of the header more often than others."""
        data = rng.choice(self.files)
        head = 200 if rng.random() < 0.5 else len(data)
        data = mutate_bytes(data[:head], rng) + data[head:]
        self.path.write_bytes(data)
        problem: ValueError | None = None
        try:
            width, height, _ = verify_image(self.path)
            require(0 < width * height <= MAX_PIXELS, "a size that is none")
        except ValueError as error:
            problem = error
        image = decode_image(data)
        require(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"an image {image.shape}")
        require(image.flags["C_CONTIGUOUS"] and 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS, "its pixels")
        if problem is not None:
            raise problem
        require(image.shape[:2] == (height, width), f"verified as {width} x {height}, decoded as {image.shape}")


class Darknet:
    """Darknet cfgs and weights: damaged text, changed options, moved sections, damaged bytes."""

    named = ("x.cfg", "x.weights", "model.")
    loud = False
    numbers = (
        *("0", "1", "2", "3", "-1", "-2", "-9", "7", "16", "64", "65", "65536", "999999999", "-2147483649", "9" * 30),
        *(
            "",
            ",",
            "1,2",
            "-1,-2",
            "0.5",
            "1e9",
            "nan",
            "1,1,1,1,1,1",
            "mish",
            "leaky",
            "linear",
            "\0",
            "\xff",
            "x" * 200,
        ),
    )

    def __init__(self, folder: Path) -> None:
        self.path, self.cfg = folder / "x.weights", str(folder / "x.cfg")
        rule = "[yolo]\nignore_thresh=.7\ntruth_thresh=1\niou_thresh=0.213\niou_normalizer=0.07\ncls_normalizer=1.0\n"
        rule += "obj_normalizer=0.4\nlabel_smooth_eps=0.1\nobjectness_smooth=1\nmax_delta=5\n"
        self.texts = (DETECTOR, CLASSIFIER, DETECTOR.replace("[yolo]", rule))
        self.weights = {text: weights(values(count(text))) for text in self.texts}

    def case(self, rng: random.Random) -> None:
        """Damage a cfg, or its weights, or both."""
        own = rng.choice(self.texts)
        text, data = own, self.weights[own]
        kind = rng.random()
        if kind < 0.7:
            text = self._other_text(own, rng)
        if kind >= 0.6:
            data = mutate_bytes(data, rng, most=2)
        self.path.write_bytes(data)
        plan = plan_network(text, file=self.cfg)
        section = DarknetModel(kind="darknet", cfg=self.cfg, text=text, norm_act="plain")
        require(plan.values == count(text), f"{plan.values} values, counted {count(text)}")
        with torch.device("meta"):
            self.check(build_model(section, seed=0), plan.values)
        if kind > 0.4 and rng.random() < 0.5:
            self.check_training(text, rng)
        file = check_weights(self.path, plan)
        require(4 * file.values <= len(data), "more values than the file has")
        model = build_model(section, seed=0)
        read_weights(file, model)
        width, height = model.input_size(max(model.stride, 32 // model.stride * model.stride))
        if width * height <= 64 * 64:
            with torch.no_grad():
                outputs = model.eval()(torch.rand(1, 3, height, width))
            if plan.heads:
                boxes, scores = model.decode(outputs)
                require(boxes.shape[1] == scores.shape[1], "boxes without scores")
                self.check_loss(model, outputs)
        copy_path = self.path.with_name("copy")
        write_weights(copy_path, model, header=file.header, layers=file.layers)
        require(copy_path.read_bytes() == data, "the weights are written as others")

    def check_training(self, text: str, rng: random.Random) -> None:
        """With the classes and the side of a training, and weights of other classes."""
        classes = rng.choice((1, 2, 7))
        require_trainable(plan_network(text, file=self.cfg))
        other = for_side(for_classes(text, classes, file=self.cfg), 64, file=self.cfg)
        plan = plan_network(other, file=self.cfg)
        require(plan.classes == classes and plan.net["width"] == plan.net["height"] == 64, "not as asked")
        require(plan.values == count(other), f"{plan.values} values, counted {count(other)}")
        file = check_other_classes(self.path, other, file=self.cfg)
        require(4 * file.values <= self.path.stat().st_size, "more values than the file has")

    def check_loss(self, model: Any, outputs: list[torch.Tensor]) -> None:
        """A finite loss of finite outputs."""
        boxes = torch.tensor([[[3.0, 4, 20, 30], [0, 0, 0, 0]]])
        targets = Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[True, False]]))
        if all(each.isfinite().all() and each.abs().max() < 1e4 for each in outputs):
            require(bool(model.loss(outputs, targets)[0].isfinite()), "a loss that is no number")

    def check(self, model: nn.Module, expected: int) -> None:
        """As many parameters and statistics as counted."""
        statistics = sum(each.numel() for name, each in model.named_buffers() if name.endswith(("mean", "var")))
        found = sum(each.numel() for each in model.parameters()) + statistics
        require(found == expected, f"a network of {found} values, counted {expected}")

    def _other_text(self, text: str, rng: random.Random) -> str:
        if rng.random() < 0.3:
            return mutate_text(text, rng).decode("utf-8", "replace")
        lines = text.split("\n")
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.randrange(len(lines))
            kind = rng.randrange(6)
            if kind < 3 and "=" in lines[place]:
                lines[place] = f"{lines[place].partition('=')[0]}={rng.choice(self.numbers)}"
            elif kind == 3:
                del lines[place]
            elif kind == 4:
                lines.insert(rng.randrange(len(lines)), lines[place])
            else:
                blocks = "\n".join(lines).split("[")
                other = rng.randrange(len(blocks))
                blocks.insert(other, blocks.pop(rng.randrange(len(blocks))))
                lines = "[".join(blocks).split("\n")
        return "\n".join(lines)


KINDS: dict[str, type[Kind]] = {
    "annotations": AnnotationFiles,
    "configs": Configs,
    "data": DataFiles,
    "checkpoints": Checkpoints,
    "darknet": Darknet,
    "images": Images,
}
