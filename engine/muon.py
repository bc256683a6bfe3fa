"""Muon: kernels of convolutions move along their orthogonalised momentum, everything else by AdamW.

The large singular values of a gradient hide the small ones, and with them what a network has yet to learn. Muon makes
all of them about one (Keller Jordan et al., https://kellerjordan.github.io/posts/muon) and scales a step to the size of
one of AdamW (Liu et al., arXiv 2502.16982), so that both share learning rate and weight decay.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c of a x + b x^3 + c x^5, which moves singular values towards one
ITERATIONS = 3  # more also raise those below 0.02 of all, mostly noise of a batch: docs/recipe.md
ADAMW_STEP = 0.2  # usual root mean square of a step of AdamW, in learning rates


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices (N, rows, columns) whose singular values, all but small ones, are brought to between 0.7 and 1.2.

    Small is less than about 0.02 of the root of the sum of their squares; such values grow by 41. Zeros stay zeros.
    Computed in ``dtype``, for which bf16 is enough.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``orthogonal: True`` move by Muon with Nesterov momentum beta1.

    The parameters of these are seen as matrices (output channels, everything else), which are orthogonalised in bf16 if
    the training is (``amp_dtype``), otherwise in fp32.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, beta1: float, amp_dtype: torch.dtype | None = None
    ) -> None:
        more = {"orthogonal": False, "in_bf16": amp_dtype is torch.bfloat16}
        super().__init__([{**more, **group} for group in groups], lr=lr, betas=(beta1, 0.999), fused=True)
        self._step_supports_amp_scaling = False  # a GradScaler is to leave out steps by itself

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._orthogonal_step(group)

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        beta1, dtype = group["betas"][0], torch.bfloat16 if group["in_bf16"] else torch.float32
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
                state["step"] = torch.tensor(0.0)  # which AdamW looks for when it loads a state
        gradients = [parameter.grad for parameter in parameters]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - beta1)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, moved in zip(parameters, torch._foreach_lerp(gradients, momenta, beta1), strict=True):
            matrix = moved.flatten(1)
            by_shape[matrix.shape[0], matrix.shape[1]].append((parameter, matrix))
        for shape, pairs in by_shape.items():
            rate = group["lr"] * ADAMW_STEP * max(shape) ** 0.5
            steps = orthogonalised(torch.stack([matrix for _, matrix in pairs]), dtype)  # all of a shape at once
            for (parameter, _), step in zip(pairs, steps, strict=True):
                parameter.sub_(step.view(parameter.shape), alpha=rate)


def orthogonal_kernels(model: nn.Module) -> set[int]:
    """The ids of kernels whose singular values mean something: not those of one input channel, nor of predictions.

    A convolution with a bias has no batch norm after it and predicts; its step is to follow the size of its gradient.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return {id(each.weight) for each in convolutions if each.bias is None and each.weight.shape[1] > 1}
