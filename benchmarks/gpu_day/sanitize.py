"""One call of each kind of kernel, small enough for compute-sanitizer: ``python -m benchmarks.gpu_day.sanitize``.

Run with PYTORCH_NO_CUDA_MEMORY_CACHING=1: within a block of PyTorch's cache, memcheck sees no access out of bounds.
"""

import argparse
import sys
from itertools import product

import torch
from torch import nn

from ops.backend import choose
from ops.mish import Mish, mish
from ops.norm_act import norm_act

SHAPES = ((4, 136, 40, 40), (3, 5, 7, 9))  # several strips and splits, vectors; odd sizes, single elements


def main() -> int:
    """Run the kernels and wait for them; exit code 1 if a result is not finite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    device = torch.device(parser.parse_args().device)
    if choose(torch.zeros(0, device=device).device).kernels is None:
        print("our kernels are not what runs")
        return 1
    layouts = (torch.contiguous_format, torch.channels_last)
    for dtype, shape, layout in product((torch.bfloat16, torch.float32), SHAPES, layouts):
        x = torch.randn(shape, device=device).to(dtype).to(memory_format=layout).requires_grad_()
        (once,) = torch.autograd.grad(mish(x).sum(), x, create_graph=True)
        (twice,) = torch.autograd.grad(once.sum(), x)
        norm = nn.BatchNorm2d(shape[1]).to(device)
        y = norm_act(x, norm, Mish())
        found = torch.autograd.grad(y, (x, norm.weight, norm.bias), torch.ones_like(y))
        if not all(each.isfinite().all() for each in (twice, *found)):
            print(f"not finite: {dtype}, {shape}, {layout}")
            return 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
