"""Assignment and losses in plain loops over Python floats, written from the papers, not from the code under test.

TOOD (arXiv 2108.07755), CIoU (arXiv 1911.08287), Generalized Focal Loss (arXiv 2006.04388).
"""

import math


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def iou(a, b):
    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def ciou(a, b):
    """IoU - rho^2 / c^2 - alpha v (arXiv 1911.08287, eq. 8, 9, 11)."""
    rho = ((a[0] + a[2]) / 2 - (b[0] + b[2]) / 2) ** 2 + ((a[1] + a[3]) / 2 - (b[1] + b[3]) / 2) ** 2
    c = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    aspects = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (aspects[1] - aspects[0]) ** 2
    alpha = v / (1 - iou(a, b) + v) if v > 0 else 0.0
    return iou(a, b) - rho / c - alpha * v


def softmax(values):
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def anchors(shapes, strides):
    """(x, y, stride) of each cell, level by level, row by row."""
    return [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for (height, width), stride in zip(shapes, strides, strict=True)
        for row in range(height)
        for column in range(width)
    ]


def decode(distribution, anchor):
    """A box from 4 * bins logits: the expected distance of each side from the anchor, in strides."""
    bins = len(distribution) // 4
    sides = []
    for side in range(4):
        chances = softmax(distribution[side * bins : (side + 1) * bins])
        sides.append(anchor[2] * sum(index * chance for index, chance in enumerate(chances)))
    return [anchor[0] - sides[0], anchor[1] - sides[1], anchor[0] + sides[2], anchor[1] + sides[3]]


def contains(box, anchor, smallest):
    """Whether the anchor lies in the box, one thinner than `smallest` counting as that wide about its middle."""
    for axis in (0, 1):
        middle, half = (box[axis] + box[axis + 2]) / 2, max(box[axis + 2] - box[axis], smallest) / 2
        if not middle - half <= anchor[axis] < middle + half:
            return False
    return True


def assign(scores, boxes, truth, labels, cells, *, topk, alpha, beta, smallest):
    """{anchor: (index of its box, target score)} of one image; scores[anchor][class], boxes[anchor], truth[index]."""
    wanted: dict[int, list[int]] = {}  # anchor -> boxes that chose it
    alignment = {}
    for index, (box, label) in enumerate(zip(truth, labels, strict=True)):
        inside = [a for a, cell in enumerate(cells) if contains(box, cell, smallest)]
        for a in inside:
            alignment[index, a] = scores[a][label] ** alpha * iou(boxes[a], box) ** beta
        for a in sorted(inside, key=lambda a, index=index: -alignment[index, a])[:topk]:
            wanted.setdefault(a, []).append(index)
    owner = {a: max(those, key=lambda index, a=a: iou(boxes[a], truth[index])) for a, those in wanted.items()}
    result = {}
    for index, box in enumerate(truth):
        own = [a for a, holder in owner.items() if holder == index]
        if not own:
            continue
        top, overlap = max(alignment[index, a] for a in own), max(iou(boxes[a], box) for a in own)
        for a in own:
            result[a] = (index, alignment[index, a] / top * overlap if top > 0 else overlap)
    return result


def losses(maps, truths, labels, shapes, strides, classes, *, topk, alpha, beta):
    """Sums over the batch: box, cls, dfl, and the sum of target scores. maps[image][anchor] holds the raw outputs."""
    cells = anchors(shapes, strides)
    box_sum = class_sum = focal_sum = target_sum = 0.0
    for rows, truth, own_labels in zip(maps, truths, labels, strict=True):
        width = len(rows[0]) - classes
        bins = width // 4
        boxes = [decode(row[:width], cell) for row, cell in zip(rows, cells, strict=True)]
        scores = [[sigmoid(value) for value in row[width:]] for row in rows]
        chosen = assign(
            scores, boxes, truth, own_labels, cells, topk=topk, alpha=alpha, beta=beta, smallest=min(strides)
        )
        for a, row in enumerate(rows):
            index, target = chosen.get(a, (None, 0.0))
            for number, score in enumerate(scores[a]):
                z = target if index is not None and own_labels[index] == number else 0.0
                class_sum -= z * math.log(score) + (1 - z) * math.log(1 - score)
            if index is None:
                continue
            target_sum += target
            box_sum += target * (1 - ciou(boxes[a], truth[index]))
            x, y, stride = cells[a]
            left, top, right, bottom = truth[index]
            focal = 0.0
            for side, pixels in enumerate((x - left, y - top, right - x, bottom - y)):
                distance = min(max(pixels / stride, 0), bins - 1.01)
                chances = softmax(row[side * bins : (side + 1) * bins])
                low = int(distance)
                focal -= (low + 1 - distance) * math.log(chances[low]) + (distance - low) * math.log(chances[low + 1])
            focal_sum += target * focal / 4
    return box_sum, class_sum, focal_sum, target_sum
