"""A detector small enough to be trained in a minute, on images of the embedded set drawn small, for studies."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_convert

from configs.schema import load
from core.types import Targets
from data.scenes import CLASSES, annotation_fields, draw_image
from models import build_model
from models.assign import assign
from models.decode import anchor_points, decode_boxes
from models.detector import Detector
from models.loss import box_losses, class_loss

SIZE = 64  # pixels of an image's side


def make_detector(act: str, seed: int) -> Detector:
    """The model of configs/yolo-mish.yaml with two levels of large maps and another activation."""
    section = load("yolo-mish.yaml", {"model.act": act, "model.levels": [2, 3]}).model
    model = build_model(section, names=CLASSES, seed=seed)
    assert isinstance(model, Detector)
    return model


def drawn(model: Detector, count: int, *, seed: int) -> tuple[Tensor, Targets]:
    """The first training images (N, 3, SIZE, SIZE) in 0..1 of the embedded set with this seed, and their targets."""
    images, boxes, labels = [], [], []
    for index in range(count):
        image, figures = draw_image(SIZE, seed, "train", index)
        small, geometry = model.preprocess(image, SIZE)
        xywh = torch.tensor([annotation_fields(figure)["bbox"] for figure in figures]).view(-1, 4).float()
        images.append(torch.from_numpy(small.copy()).permute(2, 0, 1))
        boxes.append(geometry.to_network(box_convert(xywh, "xywh", "xyxy")).numpy())
        labels.append(torch.tensor([figure.label for figure in figures], dtype=torch.int64).numpy())
    return torch.stack(images).float() / 255, Targets.collate(boxes, labels)


def chosen(targets: Targets, numbers: Tensor) -> Targets:
    """The targets of some images."""
    return Targets(targets.boxes[numbers], targets.labels[numbers], targets.mask[numbers])


def smooth_loss(model: Detector, images: Tensor, targets: Targets) -> Callable[[], Tensor]:
    """The training loss as a function of the parameters, with the assignment of boxes as it is now, and in float64.

    The assignment is discrete, and the loss passes no gradient through it: kept, the loss is a function with a Hessian.
    Derivatives also keep the factor alpha of CIoU (core/boxes.py), as those of training do.
    """
    model.double()
    images = images.double()

    def raw() -> tuple[Tensor, Tensor, Tensor, Tensor, list[tuple[int, int]]]:
        maps = model(images)
        shapes = [(int(each.shape[2]), int(each.shape[3])) for each in maps]
        flat = torch.cat([each.permute(0, 2, 3, 1).flatten(1, 2) for each in maps], dim=1)  # (B, A, 4 reg_max + C)
        points, sizes = anchor_points(shapes, model.strides, flat.device)
        distributions, logits = flat.split((flat.shape[-1] - model.num_classes, model.num_classes), dim=-1)
        return distributions, logits, points, sizes, shapes

    with torch.no_grad():
        distributions, logits, points, sizes, shapes = raw()
        boxes = decode_boxes(distributions.float(), points, sizes)
        kept = assign(logits.float(), boxes, targets, shapes=shapes, strides=model.strides, **model.assignment)
        total = kept.scores.sum().clamp(min=1)

    def loss() -> Tensor:
        distributions, logits, points, sizes, _ = raw()
        sums = {"cls": class_loss(logits, targets, kept)}
        sums |= box_losses(distributions, points, sizes, targets, kept)
        return torch.stack([model.gains[name] * each for name, each in sums.items()]).sum() / total

    return loss
