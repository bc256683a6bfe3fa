"""Suspicious boxes: those that were planted and no others."""

from collections import Counter

import numpy as np
import pytest

from data.coco import read_coco
from data.tools import suspicious
from data.tools.suspicious import KINDS, find_suspicious
from tests.support.small_sets import box, write_coco

PLAIN = [
    [100, 100, 40, 60],
    [200, 20, 4, 4],  # just not tiny
    [220, 20, 2, 39],  # just no sliver, and not extreme
    [0, 0, 300, 300],  # the whole height, not the whole width
    [365, 250, 38, 30],  # 8 % outside
    [300, 100, 50, 50],
    [303, 100, 50, 50],  # IoU 0.887 with the one before
]
PLANTED = {
    "tiny": [[[10, 10, 3.9, 3]], [[398, 10, 50, 3]]],  # the second is 2 x 3 once clipped, and clipped
    "sliver": [[[10, 50, 1.5, 29]]],
    "extreme-aspect": [[[50, 200, 100, 5]]],
    "whole-image": [[[0, 1, 400, 299]], [[-100, -100, 600, 600]]],  # the second is clipped too
    "clipped": [[[380, 200, 40, 40]], [[-30, 100, 40, 30]]],
    "twice": [[[150, 150, 50, 50], [151, 150, 50, 50]], [[60, 230, 20, 20], [60, 230, 20, 20]]],
}
CROSSED = [[250, 220, 40, 40], [250, 221, 40, 40]]


def loaded(folder, annotations, images=None):
    path = write_coco(folder, images or {"a.png": (400, 300), "b.png": (400, 300)}, annotations)
    return read_coco(path, folder / "images", progress=False)


def test_what_was_planted_is_found_and_nothing_else(tmp_path):
    boxes = [each for groups in PLANTED.values() for group in groups for each in group]
    annotations = [box(k, 1 if each[0] == -100 else 2, each) for k, each in enumerate([*PLAIN, *boxes], 1)]
    annotations += [box(900, 2, CROSSED[0], 3), box(901, 2, CROSSED[1], 7), box(902, 1, PLAIN[0])]
    annotations.append(box(903, 2, PLAIN[0], iscrowd=1))  # a crowd on a box is no double
    data = loaded(tmp_path, annotations)
    found = find_suspicious(data, progress=False)
    expected = {kind: [sorted(map(tuple, group)) for group in groups] for kind, groups in PLANTED.items()}
    expected["two-classes"] = [sorted(map(tuple, CROSSED))]
    expected["clipped"] += [[tuple(PLANTED["tiny"][1][0])], [tuple(PLANTED["whole-image"][1][0])]]
    assert set(expected) == set(KINDS)
    named = {kind: [] for kind in KINDS}
    for each in found:
        named[each.kind].append(sorted(tuple(data.boxes[row].tolist()) for row in each.rows))
        image = "a.png" if named[each.kind][-1] == [(-100, -100, 600, 600)] else "b.png"
        assert each.as_dict(data)["file"] == image == data.file_names[each.image]
    assert {kind: sorted(groups) for kind, groups in named.items()} == {k: sorted(g) for k, g in expected.items()}
    kinds = [each.kind for each in found]
    assert kinds == sorted(kinds, key=list(KINDS).index)


@pytest.mark.parametrize("crowds", [1, 2, 5])
def test_an_image_that_has_only_crowds_has_no_doubles(tmp_path, crowds):
    """Beside it an image with a crowd and one box, and one with a box twice."""
    annotations = [box(k, 1, PLAIN[0], iscrowd=1) for k in range(crowds)]
    annotations += [box(20, 2, PLAIN[0], iscrowd=1), box(21, 2, PLAIN[0])]
    annotations += [box(30, 3, PLAIN[0]), box(31, 3, PLAIN[0])]
    data = loaded(tmp_path, annotations, {f"{k}.png": (400, 300) for k in range(3)})
    assert [(each.kind, each.image) for each in find_suspicious(data, progress=False)] == [("twice", 2)]


def overlap(one, other):
    """Intersection over union of two boxes left, top, width, height, in plain numbers."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_overlaps_agree_with_plain_arithmetic(tmp_path):
    rng = np.random.default_rng(0)
    base = [[float(v) for v in (*rng.uniform(5, 200, 2), *rng.uniform(30, 90, 2))] for _ in range(40)]
    boxes = base + [[v + float(rng.uniform(-3, 3)) for v in each] for each in base]
    data = loaded(tmp_path, [box(k, 1, each, int(rng.choice([3, 7]))) for k, each in enumerate(boxes, 1)])
    found = {
        each.rows[1]: each for each in find_suspicious(data, progress=False) if each.kind in ("twice", "two-classes")
    }
    for later in range(len(boxes)):
        overlaps = [overlap(boxes[earlier], boxes[later]) for earlier in range(later)]
        best = max(overlaps, default=0)
        assert (later in found) == (best >= suspicious.SAME)
        if later in found:
            first = found[later].rows[0]
            assert overlaps[first] == pytest.approx(best, abs=1e-4)
            assert (found[later].kind == "twice") == (data.labels[first] == data.labels[later])


def test_crowded_images_are_compared_in_linear_time(tmp_path):
    rng = np.random.default_rng(0)
    boxes = [[*rng.uniform(0, 300, 2).round(2).tolist(), 20, 20] for _ in range(suspicious.MAX_COMPARED + 50)]
    boxes += boxes[:7]
    data = loaded(tmp_path, [box(k, 1, each) for k, each in enumerate(boxes, 1)])
    found = [each for each in find_suspicious(data, progress=False) if each.kind == "twice"]
    assert Counter(each.rows[0] for each in found) == Counter(range(7))
