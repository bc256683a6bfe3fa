"""Small Darknet cfgs that hold every section and option between them."""

import struct

import numpy as np

DETECTOR = """\
# every layer of a detector
[net]
batch = 64
subdivisions=8
width=32
height=32
channels=3
momentum=0.949
decay=.0005
policy=steps
steps=400000,450000
scales=.1,.1
burn_in=1000
mosaic=1

[convolutional]   # 0
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish

[maxpool]
size=2
stride=2

[convolutional]   # 2: depthwise
batch_normalize=1
groups=8
filters=8
size=3
stride=1
pad=1
activation=leaky

[dropout]
probability=.15

[shortcut]
from=-3
activation=linear

[convolutional]   # 5
batch_normalize=1
filters=12
size=3
stride=2
pad=1
dilation=1
activation=swish

[route]           # 6: the second half
layers=-1
groups=2
group_id=1

[convolutional]
filters=6
size=3
dilation=2
pad=1
activation=relu

[shortcut]
from=6
activation=leaky

[route]
layers = -1, 5

[maxpool]         # 10
size=2
stride=1

[maxpool]
size=5
stride=1

[route]
layers=-1,-2,-3

[convolutional]
size=1
filters=14
activation=linear

[yolo]            # 14
mask=1,2
anchors=4,5, 8,9, 20,12
classes=2
num=3
scale_x_y=1.05
nms_kind=greedynms
beta_nms=0.6
jitter=.3
iou_loss=ciou

[route]
layers=12

[upsample]
stride=2

[route]
layers=-1,4

[convolutional]
size=1
filters=7
padding=0
activation=logistic
stopbackward=800

[yolo]
mask=0
anchors=4,5, 8,9, 20,12
classes=2
num=3
scale_x_y=2.0
new_coords=1
"""

# The same for six classes, as many as the embedded data have.
DETECTOR_6 = (
    DETECTOR.replace("classes=2", "classes=6").replace("filters=14", "filters=22").replace("filters=7", "filters=11")
)

CLASSIFIER = """\
[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
padding=1
activation=leaky
[maxpool]
size=3
stride=2
[convolutional]
filters=4
size=2
stride=2
pad=1
activation=mish
[avgpool]
[convolutional]
filters=5
size=1
activation=linear
[softmax]
"""


def values(number: int, *, seed: int = 0) -> np.ndarray:
    """Random values of a .weights file; positive, as some are variances."""
    return np.random.default_rng(seed).uniform(0.05, 0.5, number).astype("<f4")


def weights(data: np.ndarray, *, seen: int = 12345) -> bytes:
    """A .weights file of version 0.2.5."""
    return struct.pack("<iiiQ", 0, 2, 5, seen) + data.astype("<f4").tobytes()
