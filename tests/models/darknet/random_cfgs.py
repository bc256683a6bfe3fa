"""Random Darknet detectors: every layer type in random order and shape, for comparison with the plain-loop oracle."""

import random

SIZE = 32  # pixels
CLASSES = 2
ANCHORS = "4,5, 8,9, 20,12"
ACTIVATIONS = ("leaky", "mish", "swish", "relu", "linear", "logistic")


def random_cfg(seed: int) -> str:
    """A cfg with a random trunk down to stride 8 and one or two heads; always the same for one seed."""
    rng = random.Random(seed)
    lines = [f"[net]\nwidth={SIZE}\nheight={SIZE}\nchannels=3"]
    shapes: list[tuple[int, int]] = []  # (channels, stride) of each layer

    def add(text: str, channels: int, stride: int) -> None:
        lines.append(text)
        shapes.append((channels, stride))

    def convolution(stride: int = 1) -> None:
        channels, at = shapes[-1] if shapes else (3, 1)
        filters = rng.choice((4, 6, 8))
        groups = rng.choice([g for g in (1, 2, 4) if channels % g == 0 and filters % g == 0])
        size, dilation = rng.choice((1, 3)), 1
        if size == 3 and stride == 1:
            dilation = rng.choice((1, 1, 2))
        options = [f"filters={filters}", f"size={size}", f"stride={stride}", "pad=1", f"groups={groups}"]
        options += [f"dilation={dilation}"] * (dilation > 1) + ["batch_normalize=1"] * (rng.random() < 0.7)
        options.append(f"activation={rng.choice(ACTIVATIONS)}")
        add("[convolutional]\n" + "\n".join(options), filters, at * stride)

    def shrink() -> None:
        channels, stride = shapes[-1]
        if rng.random() < 0.5:
            convolution(stride=2)
        else:
            add(f"[maxpool]\nsize={rng.choice((2, 3))}\nstride=2", channels, 2 * stride)

    def widen() -> None:
        """A layer that keeps the stride: convolution, pooling, route, group of channels or shortcut."""
        channels, stride = shapes[-1]
        equal = [k for k, shape in enumerate(shapes[:-1]) if shape == shapes[-1]]
        near = [k for k, shape in enumerate(shapes[:-1]) if shape[1] == stride]
        kind = rng.choice(("convolution", "convolution", "pool", "route", "group", "shortcut"))
        if kind == "pool":
            add(f"[maxpool]\nsize={rng.choice((3, 5))}\nstride=1", channels, stride)
        elif kind == "shortcut" and equal:
            add(f"[shortcut]\nfrom={rng.choice(equal)}\nactivation={rng.choice(ACTIVATIONS)}", channels, stride)
        elif kind == "route" and near:
            other = rng.choice(near)
            add(f"[route]\nlayers=-1,{other}", channels + shapes[other][0], stride)
        elif kind == "group" and channels % 2 == 0:
            add(f"[route]\nlayers=-1\ngroups=2\ngroup_id={rng.choice((0, 1))}", channels // 2, stride)
        else:
            convolution()

    def head(mask: str) -> None:
        modern = rng.random() < 0.5
        filters = (5 + CLASSES) * len(mask.split(","))
        stride = shapes[-1][1]
        activation = "logistic" if modern else "linear"
        add(f"[convolutional]\nsize=1\nfilters={filters}\nactivation={activation}", filters, stride)
        options = [f"mask={mask}", f"anchors={ANCHORS}", "num=3", f"classes={CLASSES}"]
        options += [f"scale_x_y={rng.choice((1.0, 1.05, 2.0))}"] + ["new_coords=1"] * modern
        add("[yolo]\n" + "\n".join(options), filters, stride)

    convolution()
    for _ in range(3):
        widen()
        shrink()
    widen()
    trunk = len(shapes) - 1
    head("1,2")
    if rng.random() < 0.6:
        add(f"[route]\nlayers={trunk}", *shapes[trunk])
        channels, stride = shapes[-1]
        add("[upsample]\nstride=2", channels, stride // 2)
        other = next(k for k, shape in enumerate(shapes) if shape[1] == stride // 2)
        add(f"[route]\nlayers=-1,{other}", channels + shapes[other][0], stride // 2)
        head("0")
    return "\n\n".join(lines) + "\n"
