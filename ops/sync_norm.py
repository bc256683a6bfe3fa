"""Batch norm over the images of all processes that train together (`core.distributed`), alone or fused with its
activation.

Between the passes of ops/norm_act.py the processes exchange what these reduce: after the first one the mean, variance
and number of values per channel, combined as in Chan et al. (The American Statistician 37(3), 1983), so that shares of
different sizes count as they should and nothing cancels; after the third one the sums of the backward pass. A process
may have no image: it takes part in the exchanges with a count of 0. In evaluation it is an ordinary batch norm.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.distributed import all_rows, all_sum
from ops.norm_act_operators import BACKWARD, FORWARD, REDUCE, STATISTICS, layout

OVER = (0, 2, 3)  # all but the channels


class SyncBatchNorm(nn.BatchNorm2d):
    """A BatchNorm2d with the statistics of all processes in training."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; B may be 0."""
        if not (self.training or self.running_mean is None):
            return super().forward(input)
        return _normalised(_Norm, input, self, ())


def synchronise(model: nn.Module) -> None:
    """Replace each BatchNorm2d of a model by a SyncBatchNorm with the same parameters and buffers."""
    for path, norm in list(model.named_modules()):
        if type(norm) is nn.BatchNorm2d:
            new = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
            new._parameters, new._buffers = norm._parameters, norm._buffers
            model.set_submodule(path, new.train(norm.training))


def sync_norm_act(x: Tensor, norm: SyncBatchNorm, act: int, slope: float) -> Tensor:
    """The activation `act` of ops.norm_act.ACTIVATIONS of the norm in training, by the fused passes."""
    return _normalised(_NormAct, x, norm, (act, slope))


def _normalised(
    function: type[torch.autograd.Function], x: Tensor, norm: SyncBatchNorm, act: tuple[Any, ...]
) -> Tensor:
    y, mean, variance, total = function.apply(x, norm.weight, norm.bias, norm.eps, *act)
    _update_running(norm, mean, variance, total)
    return y


@torch.no_grad()
def _update_running(norm: SyncBatchNorm, mean: Tensor, variance: Tensor, total: Tensor) -> None:
    if not norm.training or norm.running_mean is None or norm.running_var is None:
        return
    tracked = norm.num_batches_tracked
    factor = norm.momentum
    if tracked is not None:
        tracked.add_(1)
        factor = 1.0 / float(tracked) if factor is None else factor
    assert factor is not None
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
    norm.running_var.lerp_((variance * (total / (total - 1))).to(norm.running_var.dtype), factor)


def _combined(mean: Tensor, variance: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and count (a scalar tensor) over all processes, from those of the values of x."""
    count = mean.new_tensor([x.numel() // x.shape[1]], dtype=torch.float64)
    rows = all_rows(torch.cat((mean.double(), variance.double(), count)))  # (world, 2 C + 1)
    means, variances, counts = rows.split((len(mean), len(mean), 1), dim=1)
    total = counts.sum()
    if x.shape[2] * x.shape[3] == 1 and float(total) <= 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    common = (counts * means).sum(0) / total
    spread = (counts * (variances + (means - common).square())).sum(0) / total
    return common.to(mean.dtype), spread.to(mean.dtype), total.to(mean.dtype)


class _NormAct(torch.autograd.Function):
    """Norm and activation by the operators of ops/norm_act_operators.py."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, act: int, slope: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, _ = layout(x)
        zeros = x.new_zeros(x.shape[1], dtype=torch.float32)
        mean, variance = STATISTICS(x, None, None, 0.0) if len(x) else (zeros, zeros)
        mean, variance, total = _combined(mean, variance, x)
        y = FORWARD(x, mean, variance, weight, bias, eps, act, slope) if len(x) else torch.empty_like(x)
        ctx.save_for_backward(x, mean, variance, weight, bias, total)
        ctx.options = (eps, act, slope)
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight, bias, total = ctx.saved_tensors
        if len(x):
            g, by_weight, by_bias = REDUCE(grad, x, mean, variance, weight, bias, *ctx.options)
        else:
            g, by_weight, by_bias = torch.empty_like(x), torch.zeros_like(mean), torch.zeros_like(mean)
        sums = all_sum(torch.stack((by_weight, by_bias))) / total  # per value, so the count is 1: no GPU is waited for
        if len(x):
            BACKWARD(g, x, mean, variance, weight, sums[0], sums[1], ctx.options[0], 1)
        return (*_needed(ctx, g, by_weight, by_bias), None, None, None)


class _Norm(torch.autograd.Function):
    """The norm alone, by operators of PyTorch: any floating-point type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = _wide(x)
        zeros = wide.new_zeros(x.shape[1])
        variance, mean = torch.var_mean(wide, OVER, correction=0) if len(x) else (zeros, zeros)
        mean, variance, total = _combined(mean, variance, x)
        y = F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, mean, variance, weight, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight, total = ctx.saved_tensors
        g, scale = _wide(grad), _channels((variance + ctx.eps).rsqrt())
        normalised = (_wide(x) - _channels(mean)) * scale
        by_weight, by_bias = (g * normalised).sum(OVER), g.sum(OVER)
        sums = all_sum(torch.stack((by_weight, by_bias))) / total
        dx = scale * (g - _channels(sums[1]) - normalised * _channels(sums[0]))
        if weight is not None:
            dx = dx * _channels(weight)
        return (*_needed(ctx, dx.to(x.dtype), by_weight, by_bias), None)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _needed(ctx: Any, *gradients: Tensor) -> list[Tensor | None]:
    return [each if needed else None for each, needed in zip(gradients, ctx.needs_input_grad, strict=False)]
