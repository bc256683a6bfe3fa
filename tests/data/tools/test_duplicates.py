"""Duplicate images: planted copies, re-encodings and look-alikes."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data.coco import read_coco
from data.synthetic import draw
from data.tools import duplicates
from data.tools.duplicates import _components, find_duplicates, near_pairs, overlaps
from tests.support.shared import shared
from tests.support.small_sets import write_coco


def scene(seed, width=320, height=240):
    """A smooth picture of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def split(folder, pictures, **options):
    """A COCO set of given pictures {name: array, or bytes of a file}."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_coco(folder, dict.fromkeys(pictures, (8, 8)), [])
    content = json.loads(path.read_text())
    for record, (name, picture) in zip(content["images"], pictures.items(), strict=True):
        if isinstance(picture, bytes):
            (folder / "images" / name).write_bytes(picture)
        else:
            cv2.imwrite(str(folder / "images" / name), picture)
        del record["width"], record["height"]
    path.write_text(json.dumps(content))
    return read_coco(path, folder / "images", progress=False)


def named(groups, kind):
    return [[f"{each.split}/{each.file}" for each in group.members] for group in groups if group.kind == kind]


def test_planted_duplicates_within_and_across_splits(tmp_path):
    pictures = {f"{k}.png": scene(k) for k in range(8)}
    smaller = cv2.resize(scene(1), (200, 150), interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", scene(2), [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
    brighter = np.clip(scene(3).astype(int) * 0.8 + 30, 0, 255).astype(np.uint8)
    exact = cv2.imencode(".png", scene(4))[1].tobytes()
    flat = {f"flat{k}.png": np.full((60, 60, 3), 100 + k, np.uint8) for k in range(3)}
    train = split(tmp_path / "train", {**pictures, "small.png": smaller, **flat})
    val = split(
        tmp_path / "val",
        {
            "own.png": scene(50),
            "coded.jpg": coded,
            "bright.png": brighter,
            "copy.png": exact,
            "flip.png": scene(5)[:, ::-1],
        },
    )
    groups = find_duplicates({"train": train, "val": val}, progress=False)
    assert named(groups, "same-bytes") == [["train/4.png", "val/copy.png"]]
    assert named(groups, "same-file") == []
    assert named(groups, "near") == [
        ["train/1.png", "train/small.png"],
        ["train/2.png", "val/coded.jpg"],
        ["train/3.png", "val/bright.png"],
    ]
    (found,) = overlaps(groups, {"train": len(train), "val": len(val)})
    assert (found.one, found.other, found.exact, found.near, found.images) == ("train", "val", 1, 2, 5)


def test_one_file_in_two_splits(tmp_path):
    train = split(tmp_path / "a", {f"{k}.png": scene(k) for k in range(3)})
    shutil.copy(tmp_path / "a/annotations.json", tmp_path / "b.json")
    val = read_coco(tmp_path / "b.json", tmp_path / "a/images", progress=False)
    groups = find_duplicates({"train": train, "val": val}, progress=False)
    assert named(groups, "same-file") == [[f"train/{k}.png", f"val/{k}.png"] for k in range(3)]
    assert len(groups) == 3 and overlaps(groups, {"train": 3, "val": 3})[0].exact == 3


def test_near_pairs_link_what_comparing_all_with_all_links():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (60, 8), dtype=np.uint8)
    bits = np.unpackbits(hashes, axis=1)
    for _ in range(240):  # copies of a few with some bits turned over, around the limit
        copied = bits[rng.integers(60)].copy()
        copied[rng.choice(64, rng.integers(0, 9), replace=False)] ^= 1
        bits = np.concatenate([bits, copied[None]])
    thumbnails = np.tile(rng.integers(0, 256, 256, dtype=np.uint8), (len(bits), 1))
    thumbnails[::7] = 255 - thumbnails[::7]  # these look like each other only
    groups = _components(near_pairs(np.packbits(bits, axis=1), thumbnails))
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    turned = np.arange(len(bits)) % 7 == 0
    close = (distance <= duplicates.DISTANCE) & (turned[:, None] == turned[None])
    expected = _components([(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(close, 1)), strict=True)])
    assert groups == expected and len(expected) > 10


@pytest.mark.slow
def test_drawn_images_are_no_duplicates(tmp_path):
    draw(tmp_path / "shapes", train=40, val=20, test=0, side=64, seed=0, progress=False)
    splits = {
        name: read_coco(
            tmp_path / f"shapes/annotations/{name}.json", tmp_path / f"shapes/images/{name}", progress=False
        )
        for name in ("train", "val")
    }
    assert find_duplicates(splits, progress=False) == []


def test_real_photographs_are_no_duplicates():
    folder = shared("data/coco100")
    splits = {
        name: read_coco(folder / "annotations" / f"{name}.json", folder / "images", progress=False)
        for name in ("train", "val")
    }
    assert find_duplicates(splits, progress=False) == []
