"""Slow second opinions, each rule written out as an autograd function, and untrained networks worth comparing on."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


# ---- Backprop rules: every rectifier call becomes a function with the rule written out
class Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rule, high, slope):
        ctx.rule = rule
        ctx.save_for_backward(torch.where(x > 0, (x < high).to(x), slope))
        return torch.where(x > 0, x.clamp(max=high), slope * x)

    @staticmethod
    def backward(ctx, grad):
        (own,) = ctx.saved_tensors
        if ctx.rule != "gradient":
            grad = torch.where(grad > 0, grad, 0.0)
        if ctx.rule != "deconvnet":
            grad = torch.where(own != 0, grad * own, 0.0)
        return grad, None, None, None


class Reference(TorchFunctionMode):
    """Replaces rectifier calls, and counts them. Sees modules too, for they call the same functions."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.count = rule, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        high, slope = float("inf"), 0.0
        if name == "relu6":
            high = 6.0
        elif name == "hardtanh" and kwargs["min_val"] == 0:
            high = kwargs["max_val"]
        elif name == "leaky_relu":
            slope = kwargs["negative_slope"]
        elif not self._cuts_at_zero(name, args, kwargs):
            return func(*args, **kwargs)
        self.count += 1
        return Ruled.apply(args[0], self.rule, high, slope)

    @staticmethod
    def _cuts_at_zero(name, args, kwargs):
        if name == "clamp":
            return kwargs == {"min": 0}
        if name == "maximum":
            return not args[1].any()
        return name in {"relu", "relu_"} or (name == "_threshold" and args[1:] == (0.0, 0.0))


def reference(module, images, choose, rule):
    """The signal of ``choose(output)`` by ``rule``, from the written-out functions."""
    images = images.clone().requires_grad_()
    with Reference(rule):
        value = choose(module(images))
    return torch.autograd.grad(value.sum(), images)[0]


# ---- DeepLift: image and reference in one doubled batch, each operation with its formula
class Secant(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, slope_at):
        (x1, x0), (y1, y0) = x.chunk(2), y.chunk(2)
        slope = torch.where(x1 == x0, slope_at.chunk(2)[0], (y1 - y0) / (x1 - x0))
        ctx.save_for_backward(torch.cat([slope, slope]))
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        half = [sum(x.chunk(2)) / 2 for x in (a, b)]
        ctx.save_for_backward(*(torch.cat([x, x]) for x in half))
        return a * b

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return (grad * b).sum_to_size(a.shape), (grad * a).sum_to_size(b.shape)


class Pool(torch.autograd.Function):
    """Max-pooling window by window: cut out by ``unfold``, put back by ``fold``."""

    @staticmethod
    def forward(ctx, x, size, stride, padding, ceil):
        n, c, height, width = x.shape
        steps = [(math.ceil if ceil else math.floor)((s + 2 * padding - size) / stride) + 1 for s in (height, width)]
        steps = [
            k - ((k - 1) * stride >= s + padding) if ceil else k for k, s in zip(steps, (height, width), strict=True)
        ]
        right, below = (
            (k - 1) * stride + size - s - padding for k, s in zip(steps[::-1], (width, height), strict=True)
        )
        wide = F.pad(x, (padding, right, padding, below), value=-1e30)
        wide = wide[:, :, : (steps[0] - 1) * stride + size, : (steps[1] - 1) * stride + size]
        windows = F.unfold(wide.reshape(n * c, 1, *wide.shape[2:]), size, stride=stride)  # [n c, k k, steps]
        x1, x0 = windows.chunk(2)
        y1, y0 = x1.amax(1, keepdim=True), x0.amax(1, keepdim=True)
        eps = 64 * torch.finfo(x.dtype).eps
        hot1, hot0 = (F.one_hot(z.argmax(1), size * size).movedim(-1, 1).to(x.dtype) for z in (x1, x0))
        also1 = (hot0 * x1).sum(1, keepdim=True) >= y1 - eps * y1.abs()  # the reference's winner wins here too
        also0 = (hot1 * x0).sum(1, keepdim=True) >= y0 - eps * y0.abs()
        hot1, hot0 = torch.where(also1, hot0, hot1), torch.where(also0, hot1, hot0)
        top, run = torch.maximum(y1, y0), x1 - x0
        up = torch.where(run == 0, 1.0, (top - y0) / run) * hot1
        down = torch.where(run == 0, 0.0, (y1 - top) / run) * hot0
        ctx.save_for_backward(up + down)
        ctx.sizes = (x.shape, wide.shape, size, stride, padding)
        return torch.cat([y1, y0]).view(n, c, *steps)

    @staticmethod
    def backward(ctx, grad):
        shape, wide, size, stride, padding = ctx.sizes
        share = ctx.saved_tensors[0]
        passed = torch.cat([share, share]) * grad.reshape(2 * len(share), 1, -1)
        whole = F.fold(passed, wide[2:], size, stride=stride).view(*shape[:2], *wide[2:])
        whole = F.pad(whole[:, :, padding:, padding:], (0, shape[3], 0, shape[2]))
        return whole[:, :, : shape[2], : shape[3]], None, None, None, None


CURVES = {"relu", "relu6", "hardtanh", "silu", "sigmoid", "hardswish", "hardsigmoid", "gelu"}


class Doubled(TorchFunctionMode):
    """Operations on [images; references], by the classes above."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in CURVES:
            with torch.enable_grad():
                x = args[0].detach().requires_grad_()
                y = func(x, *args[1:], **{**kwargs, "inplace": False} if "inplace" in kwargs else kwargs)
                (slope,) = torch.autograd.grad(y.sum(), x)
            return Secant.apply(args[0], y.detach(), slope)
        if name == "mul" and isinstance(args[1], torch.Tensor) and args[0].requires_grad and args[1].requires_grad:
            return Product.apply(*args)
        if name == "max_pool2d":
            given = dict(zip(("kernel_size", "stride", "padding"), args[1:], strict=False)) | kwargs
            size = given["kernel_size"]
            return Pool.apply(
                args[0], size, given.get("stride") or size, given.get("padding", 0), given.get("ceil_mode", False)
            )
        return func(*args, **kwargs)


def lifted(module, images, references, choose):
    """DeepLift's contributions of images against references; ``choose`` sees the images' half of the output."""
    both = torch.cat([images, references]).requires_grad_()
    with Doubled():
        value = choose(module(both)[: len(images)])
    (slopes,) = torch.autograd.grad(value.sum(), both)
    return slopes[: len(images)] * (images - references)


# ---- Networks
def calibrated(module, size, count=4):
    """Batch-norm statistics of a random batch and biases that are not zero: else the signals of a deep net vanish."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
        bias = getattr(part, "bias", None)
        with torch.no_grad():
            if isinstance(bias, nn.Parameter):
                bias.copy_(torch.randn(bias.shape, generator=generator) * 0.1)
            if isinstance(getattr(part, "layer_scale", None), nn.Parameter):
                part.layer_scale.fill_(0.5)  # 1e-6 at first: the block would do nothing
        if type(part).__name__ in {"Dropout", "StochasticDepth"}:
            part.p = 0.0
    with torch.no_grad():
        module.train()(torch.rand(count, 3, size, size, generator=generator))
    return module.eval()


def classifier(name, size, classes=10):
    """A torchvision classifier, untrained and calibrated."""
    from torchvision import models

    torch.manual_seed(0)
    extra = {}
    if name in {"googlenet", "inception_v3"}:
        extra = {"aux_logits": False, "init_weights": False}
    if name.startswith("vgg"):
        extra = {"init_weights": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = models.get_model(name, weights=None, num_classes=classes, **extra)
    return calibrated(module, size)


def off(got, wanted):
    """The largest difference, relative to the largest value."""
    return float((got - wanted).abs().max() / wanted.abs().max())
