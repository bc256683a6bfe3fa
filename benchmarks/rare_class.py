"""A variant of the embedded data set in which one class is rare, to measure what class balance brings.

    python -m benchmarks.rare_class --out datasets/rare
    python compare.py --vary train.class_balance=0,0.5 --data datasets/rare/rare.yaml --imgsz 160 --epochs 16 --seeds 4

Nothing is drawn differently: of more training images than are needed, those with a star are left out but for a few.
The validation images are all there, so that the AP of the class is that of a usual share of stars.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from configs.cli import Parser, run_script
from core.files import write_text
from data.scenes import CLASSES
from data.synthetic import draw

RARE = "star"
DRAWN = 3  # images drawn for each that is kept; four in ten are without a star


def main(argv: list[str] | None = None) -> int:
    """Draw the set and write its YAML."""
    options = parse(argv)
    out = Path(options.out)
    draw(out, train=DRAWN * options.images, val=options.val, test=1, side=options.side, seed=options.seed)
    content = json.loads((out / "annotations/train.json").read_text(encoding="utf-8"))
    chosen = thinned(content, images=options.images, rare=options.rare)
    write_text(out / "annotations/train_rare.json", json.dumps(chosen))
    splits = {
        "train": {"images": "images/train", "annotations": "annotations/train_rare.json"},
        "val": {"images": "images/val", "annotations": "annotations/val.json"},
    }
    write_text(out / "rare.yaml", yaml.safe_dump(splits, sort_keys=False))
    print(f"{out / 'rare.yaml'}: {options.images} training images, {options.rare} of them with a {RARE}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.rare_class", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="folder to draw into")
    add("--images", type=int, default=600, help="training images")
    add("--rare", type=int, default=30, help=f"of these, images with a {RARE}")
    add("--val", type=int, default=150, help="validation images")
    add("--side", type=int, default=160, help="least long side of an image in pixels")
    add("--seed", type=int, default=0, help="of the drawing")
    options = parser.parse_args(argv)
    parser.require_positive(options, "images", "rare", "val", "side")
    if options.rare > options.images:
        parser.error(f"--rare {options.rare}: expected at most --images, which is {options.images}")
    return options


def thinned(content: dict[str, Any], *, images: int, rare: int) -> dict[str, Any]:
    """The first `rare` images with the class and the first others, `images` in all, in COCO's form and order."""
    category = 1 + CLASSES.index(RARE)
    having = {each["image_id"] for each in content["annotations"] if each["category_id"] == category}
    identities = [each["id"] for each in content["images"]]
    kept = [each for each in identities if each in having][:rare]
    kept += [each for each in identities if each not in having][: images - rare]
    if len(kept) < images:
        raise ValueError(f"the drawn images have {len(kept)} of the kind to be kept; expected {images}")
    chosen = set(kept)
    return {
        "images": [each for each in content["images"] if each["id"] in chosen],
        "annotations": [each for each in content["annotations"] if each["image_id"] in chosen],
        "categories": content["categories"],
    }


if __name__ == "__main__":
    run_script(main)
