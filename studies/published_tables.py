"""Published numbers that `studies.published` tries: CIFAR-10 and the depth figure by Mish's author, and COCO."""

from typing import NamedTuple

# --------------------------------------------------------------------------- 23 runs on CIFAR-10, accuracy in percent
# The 13 activations of Table 1 of arXiv 1908.08681, from the README of github.com/digantamisra98/Mish (0004347e),
# section "Significance Level" (20 more are there): mean and standard deviation of its table, its p-value, Cohen's d and
# 95 % interval of the difference (other minus Mish), then mean and half-width from "Confidence Interval Profiles".
RUNS = 23


class CifarRow(NamedTuple):
    """A row of the table, and of the profiles."""

    mean: float
    sd: float
    p: float | None  # None for P < 0.0001
    cohens_d: float
    low: float
    high: float
    profile_mean: float
    profile_half: float


MISH = CifarRow(87.48, 0.3967, None, 0.0, 0.0, 0.0, 87.48, 0.1716)
CIFAR10 = {
    "Swish-1": CifarRow(87.32, 0.414, 0.1973, 0.386, -0.3975, 0.0844, 87.32347, 0.179027),
    "E-Swish": CifarRow(87.49, 0.411, 0.9075, 0.034444, -0.2261, 0.2539, 87.49391, 0.1776597),
    "GELU": CifarRow(87.37, 0.472, 0.4003, 0.250468, -0.3682, 0.1499, 87.37083, 0.2040073),
    "ELiSH": CifarRow(87.38, 0.47731, 0.4283, 0.235784, -0.3643, 0.1573, 87.37652, 0.2064078),
    "ReLU": CifarRow(86.66, 0.584, None, 1.645536, -1.1179, -0.5247, 86.65869, 0.2524601),
    "ELU": CifarRow(86.41, 0.3371, None, 2.918232, -1.2931, -0.8556, 86.40565, 0.1458006),
    "Leaky ReLU": CifarRow(86.85, 0.4569, None, 1.47632, -0.8860, -0.3774, 86.84826, 0.1976138),
    "RReLU": CifarRow(86.87, 0.4478, None, 1.444091, -0.8623, -0.3595, 86.86913, 0.1936264),
    "SELU": CifarRow(83.91, 0.5995, None, 7.020812, -3.8713, -3.2670, 83.91086, 0.2592722),
    "SoftPlus": CifarRow(83.004, 1.4015, None, 4.345453, -4.7778, -4.1735, 83.00434, 0.6060631),
    "SReLU": CifarRow(85.05, 0.5826, None, 4.883831, -2.7306, -2.1381, 85.04565, 0.2519697),
    "ISRU": CifarRow(86.85, 0.1106, None, 5.302987, -4.4855, -3.5815, 83.44652, 0.4323568),
    "Tanh": CifarRow(83.15, 0.6887, None, 7.700198, -4.6618, -3.9938, 83.15217, 0.2978422),
}
# The same README, "Sample Size = 3": mean and standard deviation of Flatten T-Swish.
FLATTEN_T_SWISH_OF_3 = (86.85, 0.11060440015357959)

# ---------------------------------------------------------------------------------- COCO, single runs, AP and AP50 in %


class CocoRow(NamedTuple):
    """A pair of detectors that differ in the activation: leaky ReLU, then Mish."""

    group: str  # paper: in the paper or the two tables it quotes; later: by the same author of detectors, other code
    ap: tuple[float, float]
    ap50: tuple[float, float]


COCO = {
    # YOLOv4 (arXiv 2004.10934), Table 6, with CutMix, Mosaic and label smoothing, where only the pre-trained classifier
    # differs; the paper's Table 4 quotes the first (as "ReLU") and leaves the second out.
    "CSPDarknet53-PANet-SPP 512": CocoRow("paper", (42.4, 43.0), (64.5, 64.9)),
    "CSPResNeXt50-PANet-SPP 512": CocoRow("paper", (42.3, 42.3), (64.3, 64.2)),
    # Table 5 of the paper; also github.com/WongKinYiu/PyTorch_YOLOv4, README at 84f3218.
    "pacsp-s val 736": CocoRow("paper", (36.0, 37.4), (54.2, 56.3)),
    "pacsp val 736": CocoRow("paper", (46.4, 46.5), (64.8, 65.7)),
    "pacsp-x val 736": CocoRow("paper", (47.6, 48.5), (66.1, 67.4)),
    # The same repository (code of Scaled-YOLOv4, arXiv 2011.08036): experiments.md at 0b8761c, README at 6e88dc2, and
    # its history.
    "pacsp test 608": CocoRow("later", (45.9, 46.6), (64.3, 64.9)),
    "pacsp-x test 608": CocoRow("later", (47.7, 48.5), (66.0, 66.6)),
    "pacsp-s val 672": CocoRow("later", (36.6, 38.6), (55.5, 57.7)),
    "pacsp val 672": CocoRow("later", (47.2, 48.1), (66.2, 66.9)),
    "pacsp-x val 672": CocoRow("later", (49.3, 50.0), (68.1, 68.5)),
    "pacsp-s val 640, old": CocoRow("later", (37.0, 38.8), (55.7, 57.8)),
    "pacsp val 640, old": CocoRow("later", (47.7, 48.8), (66.4, 67.2)),
    "pacsp-x val 640, old": CocoRow("later", (50.0, 51.2), (68.3, 69.4)),
    "pacsp-s val 640": CocoRow("later", (38.9, 40.7), (57.7, 59.5)),
    "pacsp val 640": CocoRow("later", (49.4, 50.8), (68.1, 69.4)),
    "pacsp-x val 640": CocoRow("later", (51.6, 52.6), (70.1, 71.0)),
    "pacsp-s test 640": CocoRow("later", (39.0, 40.8), (57.8, 59.5)),
    "pacsp test 640": CocoRow("later", (49.8, 50.9), (68.4, 69.4)),
    "pacsp-x test 640": CocoRow("later", (52.2, 52.8), (70.5, 71.1)),
}
# Standard deviations of AP over repeated trainings on COCO. The first is the largest of ten that the README of
# github.com/automl/GoLU (85c32c9) prints after a ± sign for Faster R-CNN and RetinaNet with five activations (0.044 to
# 0.146; it says neither how many runs nor that ± is a standard deviation). The second is what a maintainer calls normal
# in open-mmlab/mmdetection#3496 ("less than 0.3 mAP"), read as a standard deviation, which is cautious.
SEED_SD, CAUTIOUS_SD = 0.146, 0.3

# --------------------------------------------------------------------------- the depth figure, MNIST test accuracy in %
# Fully connected blocks by number of layers, one run a point. First version: Layers_Acc.ipynb (Mish, Swish) and
# Observations/layersacc.png (ReLU) of the author's repository; second: its poster. Figures were digitised to 0.2.
LAYERS = tuple(range(15, 26))
DEPTH = {
    "Mish": (
        (98.43, 98.28, 98.38, 98.24, 98.05, 97.52, 97.86, 96.46, 94.52, 94.66, 85.16),
        (98.2, 98.2, 98.3, 98.1, 97.7, 97.4, 97.6, 97.7, 96.8, 89.0, 87.9),
    ),
    "Swish": (
        (98.2, 97.91, 97.95, 97.52, 97.2, 96.22, 95.57, 91.74, 73.58, 63.41, 39.68),
        (98.3, 97.8, 98.0, 97.6, 97.7, 96.6, 95.5, 93.9, 84.9, 70.5, 43.6),
    ),
    "ReLU": (
        (97.1, 97.8, 85.7, 58.4, 51.4, 48.0, 26.8, 26.8, 14.4, 18.4, 22.9),
        (97.1, 95.3, 94.6, 47.8, 57.4, 36.4, 32.5, 26.9, 21.8, 11.8, 11.2),
    ),
}
