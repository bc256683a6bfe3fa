"""A detector under Gaussian noise: a small one is trained on the embedded data set and tested on noisy images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from configs.schema import Config, load
from core.device import place
from core.options import NmsOptions
from core.types import Batch
from data import build_eval_loader, build_train_loader
from data.loader import EvalLoader
from engine.evaluation.evaluate import evaluate
from engine.evaluation.ground_truth import GroundTruth
from engine.setup import TrainSetup, build_trainer, load_splits, prepare_operator
from models import build_model

SIDE = 64  # pixels, of the images and the network's input
BATCH = 16


def noisy_map(
    activation: str,
    seed: int,
    *,
    trained_to: int,
    sigmas: Sequence[int],
    images: tuple[int, int],
    epochs: int,
    width: float = 0.25,
) -> list[float]:
    """mAP50-95 in % on images with noise of each standard deviation, in units of pixel values from 0 to 255.

    In training, the standard deviation is drawn between 0 and ``trained_to`` for each image. ``images``: to train on
    and to test on. ``width``: the multiple of the channels.
    """
    with TemporaryDirectory() as folder:
        setup = _setup(_config(Path(folder), activation, width, seed, trained_to, images, epochs))
        trainer, loader = build_trainer(setup), setup.train_loader
        for epoch in range(epochs):
            trainer.state.epoch = epoch
            trainer.model.train()
            loader.set_position(epoch, 0)
            for batch in loader.iterate():
                trainer.one_step(batch, weight=1, update=True)
        truth = GroundTruth.from_annotations(setup.splits["val"])
        results = (
            evaluate(trainer.eval_model, with_noise(setup.val_loader, sigma, seed), truth=truth, nms=setup.nms)
            for sigma in sigmas
        )
        return [100 * result.stats.numbers["mAP50-95"] for result in results]


def with_noise(batches: EvalLoader, sigma: int, seed: int) -> Iterator[Batch]:
    """Batches whose images have noise added, rounded to pixel values; what is drawn depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches.iterate():
        noise = sigma * torch.randn(batch.images.shape, generator=generator)
        yield replace(batch, images=(batch.images + noise).round().clamp(0, 255).to(torch.uint8))


def _config(
    folder: Path, activation: str, width: float, seed: int, trained_to: int, images: tuple[int, int], epochs: int
) -> Config:
    counts = dict(zip(("train", "val"), images, strict=True))
    noise = {"name": "GaussNoise", "std_range": [0.0, trained_to / 255], "p": 1.0}
    return load(
        "yolo.yaml",
        {
            "model.width_multiple": width,
            "model.act": activation,
            "model.levels": [2, 3],  # a third of the layers
            "data": {
                "root": str(folder / "shapes"),
                **{name: {"images": f"images/{name}", "annotations": f"annotations/{name}.json"} for name in counts},
                "embedded": {**counts, "test": 1, "side": SIDE, "epochs": epochs},
            },
            "train.batch": BATCH,
            "train.epochs": epochs,
            "train.seed": seed,
            "train.optimizer": "adamw",  # not the default of train.py, which changes
            "train.lr": 0.002,
            "train.amp": "off",
            "train.device": "cpu",
            "augment.mosaic": 0.0,  # objects of a few pixels would need longer training
            "augment.extra": [noise] if trained_to else [],
        },
    )


def _setup(config: Config) -> TrainSetup:
    """As engine.setup.build makes it; the test images are its split val, which nothing is chosen by."""
    train, val = config.train, config.val
    assert val.iou is not None and train.epochs is not None  # resolved by load
    device = place(train.device, amp=train.amp, channels_last=train.channels_last)
    splits = load_splits(config, verify=(), progress=False)
    model = build_model(config.model, names=splits["train"].classes, seed=train.seed)
    return TrainSetup(
        config=config,
        model=model,
        device=device,
        splits=splits,
        data_sha256={},
        train_loader=build_train_loader(
            splits["train"],
            imgsz=SIDE,
            batch=BATCH,
            seed=train.seed,
            augment=config.augment,
            cache="ram",
            mosaic_until=train.epochs - round(train.close_mosaic * train.epochs),
            progress=False,
            **model.fitting,
        ),
        val_loader=build_eval_loader(
            splits["val"], imgsz=SIDE, batch=2 * BATCH, preprocess=model.preprocess, cache="ram", progress=False
        ),
        nms=NmsOptions(conf=val.conf, iou=val.iou, max_det=val.max_det, multi_label=True),
        census=(),
        census_text="",
        gflops=0.0,
        operator=prepare_operator(config, model, device),
        learnable=(),
    )
