"""Batch norm and activation of a batch in shares: python -m tests.support.norms_together IN OUT.

IN has cases (x, gradient, norm's state, class of activation, fused, sizes of the shares); OUT gets for each case the
output and the gradient of x of all shares, the summed gradients of weight and bias, and the norm's state.
"""

import sys
from typing import Any

import torch
from torch import nn

from core.distributed import all_sum, gather, joined, rank
from ops.mish import Mish
from ops.norm_act import norm_act
from ops.sync_norm import SyncBatchNorm

ACTS: dict[str, type[nn.Module]] = {"mish": Mish, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}


def norm_of(case: dict[str, Any], kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    """The norm of a case, as this class."""
    norm = kind(case["x"].shape[1], **case["options"])
    norm.load_state_dict(case["state"])
    return norm


def share_of(case: dict[str, Any]) -> dict[str, Any]:
    """What all processes together compute of a case."""
    first = sum(case["sizes"][: rank()])
    places = slice(first, first + case["sizes"][rank()])
    layout = torch.channels_last if case["last"] else torch.contiguous_format
    x = case["x"][places].contiguous(memory_format=layout).requires_grad_()
    norm, act = norm_of(case, SyncBatchNorm), ACTS[case["act"]]()
    y = norm_act(x, norm, act) if case["fused"] else act(norm(x))
    y.backward(case["grad"][places])
    found = gather((y.detach(), x.grad))
    parameters = [all_sum(each.grad) for each in norm.parameters() if each.grad is not None]
    parts = [] if found is None else [torch.cat(each) for each in zip(*found, strict=True)]
    return {"parts": parts, "parameters": parameters, "state": dict(norm.state_dict())}


if __name__ == "__main__":
    with joined():
        results = [share_of(case) for case in torch.load(sys.argv[1], weights_only=True)]
        if rank() == 0:
            torch.save(results, sys.argv[2])
