"""Which operation follows which rule; operations are called by their ATen names without namespace and overload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sp_core.shadows import mixes, moves, windows
from sp_core.shadows.call import Call

MOVES = {
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_copy", "view_copy", "_reshape_alias"], moves.reshape),
    **dict.fromkeys(["alias", "detach", "lift_fresh", "_to_copy", "contiguous", "_conj", "dropout"], moves.same),
    **dict.fromkeys(["permute", "permute_copy"], moves.permute),
    **dict.fromkeys(["transpose", "t", "swapaxes"], moves.transpose),
    **dict.fromkeys(["slice", "narrow"], moves.cut),
    **dict.fromkeys(["split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes"], moves.split),
    **dict.fromkeys(
        ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "unfold", "rot90", "repeat"],
        moves.shuffle,
    ),
    "expand": moves.expand,
    "unsqueeze": moves.unsqueeze,
    "squeeze": moves.squeeze,
    "select": moves.select,
    "unbind": moves.unbind,
    "roll": moves.roll,
    "flip": moves.flip,
    "index": moves.index,
    "index_select": moves.index_select,
}
REDUCTIONS = ["sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "argmax"]
REDUCTIONS += ["argmin", "norm", "linalg_vector_norm", "logsumexp", "any", "all", "median", "aminmax", "nansum"]
RULES: dict[str, Callable[[Call], Any]] = {
    "convolution": windows.convolution,
    **{f"{kind}_pool{n}d": windows.pool for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": windows.pool for n in (2, 3)},
    **{f"_adaptive_avg_pool{n}d": windows.adaptive_pool for n in (2, 3)},
    **{f"adaptive_{kind}_pool{n}d": windows.adaptive_pool for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": windows.resize for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": windows.resize for n in (1, 2, 3)},
    **dict.fromkeys(
        ["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"], windows.resize
    ),
    "constant_pad_nd": windows.pad("constant"),
    **{f"reflection_pad{n}d": windows.pad("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": windows.pad("replicate") for n in (1, 2, 3)},
    "im2col": windows.unfold_patches,
    "cat": moves.join,
    "stack": moves.stack,
    "copy": moves.overwrite,
    **dict.fromkeys(["mul", "multiply"], mixes.product),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addmv"], mixes.matmul),
    **dict.fromkeys(["_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "topk"], mixes.along),
    **dict.fromkeys(REDUCTIONS, mixes.reduction),
    **dict.fromkeys(
        ["native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm"],
        mixes.batch_norm,
    ),
    **dict.fromkeys(["cudnn_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update"], mixes.batch_norm),
    "native_group_norm": mixes.group_norm,
    **dict.fromkeys(["native_layer_norm", "_fused_rms_norm", "rms_norm"], mixes.layer_norm),
    "glu": moves.halves,
    "native_dropout": lambda call: mixes.first_only(call, call.shadow(0)),
}
# Arithmetic that torch does not tag as such.
POINTWISE = {"hardswish", "relu6", "gelu", "mish", "threshold", "prelu", "_prelu_kernel", "log_sigmoid_forward", "abs"}
POINTWISE |= {"rrelu_with_noise", "masked_fill", "floor_divide", "rsub", "tril", "triu", "copysign", "eq", "gt", "real"}
SAME_SHAPE = {"relu", "silu", "sigmoid", "hardtanh", "hardswish", "hardsigmoid", "gelu", "elu", "leaky_relu", "tanh"}
CONSTANT = ("empty", "zeros", "ones", "full", "new_", "rand", "fill", "zero", "arange", "uniform", "normal", "berno")
ADAPTIVE = ("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
