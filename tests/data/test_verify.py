"""Verification of the images of a split: what is used in part, and what is skipped."""

import io

import numpy as np
from PIL import Image

from data.coco import read_coco
from data.issues import list_issues, summarize_issues, summary
from data.verify import verify_images
from tests.support.small_sets import box, write_coco


def test_a_jpeg_without_its_end_is_used_and_listed(tmp_path):
    """Without its last percent it stays, with its box; without its last half it is skipped."""
    path = write_coco(
        tmp_path / "set",
        dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), (320, 240)),
        [box(k, k, [9, 9, 50, 50]) for k in (1, 2)],
    )
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    for name, share in (("a.jpg", 1.0), ("b.jpg", 0.99), ("c.jpg", 0.5)):
        (path.parent / "images" / name).write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    annotations = read_coco(path, path.parent / "images", progress=False)
    data = verify_images(annotations, progress=False)
    assert data.file_names[:] == ["a.jpg", "b.jpg"] and len(data.boxes) == 2
    assert [(issue.file, issue.kind) for issue in data.issues] == [("b.jpg", "truncated"), ("c.jpg", "damaged")]
    assert summary(data.issues) == "1 skipped: 1 damaged; used in part: 1 truncated"
    assert "1 image or annotation skipped" in summarize_issues(list_issues({"train": data.issues}))
    assert summary(data.issues[:1]).startswith("nothing skipped")
