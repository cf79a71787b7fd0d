"""The table of parametrisations, and how a network gets them.

To add one, write its class and a row in ``_TABLE``.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sp_core.errors import SpError
from sp_core.parameterizations import bases, dirac, groups, low_rank, tied
from sp_core.parameterizations.base import Parameterization
from sp_core.parameterizations.symmetric import LDL, Average, Eigen, SoftL1

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One parametrisation, by name.

    Attributes:
        family: ``"symmetric"``, ``"low rank"``, ``"Dirac"`` or ``"groups"``.
        formula: how the weight Ŵ is made of the free numbers.
        source: paper, and equation where it has a number.
        make: ``(shape, position, **options)`` to the parametrisation; ``position`` counts the layers from 0.
        obstacle: the same arguments to why it cannot be applied, or None.
        options: their names and usual values; None: it must be given; 0: it follows from the shape.
    """

    family: str
    formula: str
    source: str
    make: Callable[..., Parameterization]
    obstacle: Callable[..., str | None]
    options: Mapping[str, Any] = field(default_factory=dict)


_HU = "Hu, Zagoruyko and Komodakis 2018, arXiv:1812.11027"
_DIRAC = "Zagoruyko and Komodakis 2017, arXiv:1706.00388"
_IOANNOU = "Ioannou et al., ICLR 2016, arXiv:1511.06744"
_ROOTS = "Ioannou et al., Deep Roots, CVPR 2017, arXiv:1605.06489"
_JADERBERG = "Jaderberg, Vedaldi and Zisserman, BMVC 2014, arXiv:1405.3866"
_SCHEMES = {
    "svd": ("Ŵ = A B, A [out, r], B [r, in·k·k]", "Eckart and Young 1936"),
    "separable": ("Ŵ[n, c] = Σ_k v[k, c] h[n, k]ᵀ", f"{_JADERBERG}, scheme 2"),
    "basis": ("Ŵ[n, c] = Σ_m a[n, c, m] v[m] h[m]ᵀ", f"{_JADERBERG}, scheme 1"),
    "tucker": ("Ŵ = G ×₁ U_out ×₂ U_in", "Kim et al., ICLR 2016, arXiv:1511.06530"),
    "cp": ("Ŵ[n, c, i, j] = Σ_r a[n, r] b[c, r] u[i, r] v[j, r]", "Lebedev et al., ICLR 2015, arXiv:1412.6553"),
}


def _square(shape: Shape, _position: int, **_options: Any) -> str | None:
    return tied.obstacle(shape, "triangular")


def _tied(formula: str, channels: str | None, kernel: str | None = None) -> Entry:
    return Entry(
        "symmetric",
        formula,
        _HU,
        lambda shape, _position: tied.Tied(shape, channels, kernel),
        lambda shape, _position: tied.obstacle(shape, channels, kernel),
    )


def _average(formula: str, channels: bool) -> Entry:
    return Entry(
        "symmetric",
        formula,
        _HU,
        lambda shape, _position: Average(shape, channels=channels, kernel=True),
        lambda shape, _position: tied.obstacle(shape, "triangular" if channels else None, "triangular"),
    )


def _low_rank(scheme: str) -> Entry:
    return Entry(
        "low rank",
        *_SCHEMES[scheme],
        lambda shape, _position, rank: low_rank.LowRank(shape, scheme, low_rank.chosen_rank(shape, scheme, rank)),
        lambda shape, _position, **_options: low_rank.obstacle(shape, scheme),
        {"rank": 0.5},
    )


def _bases(kind: str, formula: str) -> Entry:
    return Entry(
        "low rank",
        formula,
        _IOANNOU,
        lambda shape, _position, filters: bases.Bases(shape, kind, filters or None),
        lambda shape, _position, **_options: bases.obstacle(shape),
        {"filters": 0},
    )


def _groups(shape_of_groups: str) -> Entry:
    def count(position: int, number: int) -> int:
        return groups.schedule(shape_of_groups, number, position + 1)[-1]

    how = {"root": "g / 2^i", "tree": "g · 2^i", "column": "g"}[shape_of_groups]
    return Entry(
        "groups",
        f"Ŵ = block-diagonal, {how} blocks in the i-th layer",
        _ROOTS,
        lambda shape, position, groups: _grouped(shape, count(position, groups)),
        lambda shape, position, groups: _no_groups(shape, count(position, groups)),
        {"groups": None},
    )


def _grouped(shape: Shape, count: int) -> Parameterization:
    return groups.Grouped(shape, count)


def _no_groups(shape: Shape, count: int) -> str | None:
    return groups.obstacle(shape, count)


_TABLE: dict[str, Entry] = {
    "soft-l1": Entry(
        "symmetric", "W, and ρ Σ |W − Wᵀ| in the loss", f"{_HU}, equation 3", lambda s, _p: SoftL1(s), _square
    ),
    "triangular": _tied("Ŵ = diag(v) + triu(W, 1) + triu(W, 1)ᵀ", "triangular"),
    "average": Entry("symmetric", "Ŵ = ½ (W + Wᵀ)", f"{_HU}, equation 4", lambda s, _p: Average(s), _square),
    "eigen": Entry(
        "symmetric",
        "Ŵ = V diag(λ) Vᵀ",
        f"{_HU}, equation 4",
        lambda shape, _position, rank: Eigen(shape, rank or None),
        _square,
        {"rank": 0},
    ),
    "ldl": Entry("symmetric", "Ŵ = L diag(d) Lᵀ", f"{_HU}, equation 4", lambda s, _p: LDL(s), _square),
    "spatial": _tied("Ŵ[o, c] = each k×k kernel from its upper triangle", None, "triangular"),
    "spatial-average": _average("Ŵ[o, c] = ½ (W[o, c] + W[o, c]ᵀ)", False),
    "spatial-channel": _tied("both kernels and channels from their upper triangles", "triangular", "triangular"),
    "spatial-channel-average": _average("½ (W + Wᵀ) of each kernel, then of the channels", True),
    "4-way-chunking": _tied("Ŵ = tile₄(V), V the first strip", "4-way-chunking"),
    "4-way-blocking": _tied("Ŵ = reflect₋(reflect_|(V)), V one quarter block", "4-way-blocking"),
    "4-way-triangulizing": _tied("Ŵ = reflect_/(reflect_\\(V)), V the top triangle", "4-way-triangulizing"),
    "8-way-triangulizing": _tied(
        "Ŵ = reflect_/(reflect_\\(reflect_|(V))), V the top-left triangle", "8-way-triangulizing"
    ),
    **{scheme: _low_rank(scheme) for scheme in low_rank.NAMES},
    "lr": _bases("lr", "½ of the filters 1×k, ½ k×1"),
    "lr-join": _bases("lr-join", "Ŵ[o] = Σ_k A[o, k] basis_k, ½ of the bases 1×k, ½ k×1"),
    "lr-join-wfull": _bases("lr-join-wfull", "Ŵ[o] = Σ_k A[o, k] basis_k, ⅜ of the bases 1×k, ⅜ k×1, ¼ k×k"),
    "dirac": Entry(
        "Dirac",
        "Ŵ = diag(a) I + diag(b) W / ‖W‖",
        _DIRAC,
        lambda s, _p: dirac.Dirac(s),
        lambda s, _p: dirac.obstacle(s),
    ),
    "dirac-v1": Entry(
        "Dirac",
        "Ŵ = α I + β W",
        f"{_DIRAC}, first version",
        lambda s, _p: dirac.DiracFirst(s),
        lambda s, _p: dirac.obstacle(s, tiled=True),
    ),
    **{shape: _groups(shape) for shape in groups.SHAPES},
}


def names(family: str | None = None) -> list[str]:
    """Every parametrisation, or those of one family, in the order of the lectures.

    >>> names("Dirac"), names("groups")
    (['dirac', 'dirac-v1'], ['root', 'tree', 'column'])
    """
    return [name for name, own in _TABLE.items() if family in (None, own.family)]


def entry(name: str) -> Entry:
    """The row of the table; raises SpError naming close ones.

    >>> entry("average").formula
    'Ŵ = ½ (W + Wᵀ)'
    """
    if name not in _TABLE:
        close = difflib.get_close_matches(name, _TABLE, 3, 0.4) or list(_TABLE)[:4]
        raise SpError(f"'{name}' is not one of the {len(_TABLE)} parametrisations; did you mean {', '.join(close)}?")
    return _TABLE[name]


def obstacle(module: nn.Module, name: str, position: int = 0, **options: Any) -> str | None:
    """Why the weight of a layer cannot have the parametrisation; None when it can.

    >>> obstacle(nn.Conv2d(3, 8, 3), "triangular")
    '8×3 channels are not square'
    """
    own = _checked(name, options)
    if not isinstance(module, _LAYERS):
        return f"a {type(module).__name__} is no convolution and no linear layer"
    if parametrize.is_parametrized(module, "weight"):
        return "its weight is parametrised already"
    if getattr(module, "groups", 1) != 1:
        return f"it has {getattr(module, 'groups', 1)} groups"
    return own.obstacle(tuple(module.weight.shape), position, **_options(own, options))


def apply(
    module: nn.Module, name: str, layers: Iterable[str] | None = None, fresh: bool = False, **options: Any
) -> nn.Module:
    """``module`` itself, with the weights of ``layers`` parametrised (in place); make the optimizer afterwards.

    Args:
        module: the network; its parametrised weights get memory of their own, so a clone that shares its weights
            with others may be given.
        name: one of :func:`names`.
        layers: names of convolutions or linear layers, or patterns such as ``"layer3.*.conv2"`` (of which those that
            can have it are taken); by default every convolution that can.
        fresh: start training as the paper does, the weights taken as freshly drawn. Otherwise the nearest weights.
        options: ``rank=`` (low rank, eigen: a number, or a share of the highest), ``filters=`` (lr-join: how many
            bases), ``groups=`` (root, tree, column: of the first layer).

    Raises:
        SpError: the name, an option or a layer does not exist, or none can be parametrised so.

    >>> net = apply(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), "triangular")
    >>> bool((net[1].weight == net[1].weight.transpose(0, 1)).all()), list(parametrized(net))
    (True, ['1'])
    """
    own = _checked(name, options)
    chosen = _chosen(module, name, layers, options)
    shared: dict[int, str] = {}
    for path, layer in module.named_modules():
        weight = layer._parameters.get("weight")
        other = shared.setdefault(id(weight), path) if weight is not None else path
        if other != path and {path, other} & set(chosen):
            raise SpError(f"{other} and {path} share one weight, so neither can be parametrised alone.")
    for position, path in enumerate(chosen):
        part: Any = module.get_submodule(path)
        weight = part.weight
        made = own.make(tuple(weight.shape), position, **_options(own, options))
        # Its own memory: torch would write into that of the weight, which others may share.
        part.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
        parametrize.register_parametrization(part, "weight", made)
        if fresh:
            with torch.no_grad():
                for index, value in enumerate(made.start(weight)):
                    getattr(part.parametrizations.weight, f"original{index}").copy_(value)
    return module


def _checked(name: str, options: Mapping[str, Any]) -> Entry:
    own = entry(name)
    wrong = sorted(set(options) - set(own.options))
    if wrong:
        some = ", ".join(own.options) or "none"
        raise SpError(f"'{wrong[0]}' is not an option of {name}; its options: {some}.")
    missing = [option for option, usual in own.options.items() if usual is None and option not in options]
    if missing:
        raise SpError(f"{name} needs {missing[0]}=, for example {missing[0]}=2.")
    return own


def _options(own: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: options.get(option, usual) for option, usual in own.options.items()}


def _chosen(module: nn.Module, name: str, layers: Iterable[str] | None, options: Mapping[str, Any]) -> list[str]:
    """The layers to parametrise, in the order asked for, patterns in the order of the network."""
    parts = dict(module.named_modules())
    found: list[str] = []
    layers = [layers] if isinstance(layers, str) else layers
    last: str | None = "it has no convolution"
    convolutions = [path for path, part in parts.items() if isinstance(part, _LAYERS[:3])]
    for wanted in convolutions if layers is None else layers:
        exact = layers is not None and not set("*?[") & set(wanted)
        matches = [wanted] if wanted in parts else fnmatch.filter(parts, wanted)
        if not matches:
            raise SpError(f"'{wanted}' is no layer of this network; try {', '.join(convolutions[:3]) or 'another'}.")
        for path in matches:
            why = obstacle(parts[path], name, len(found), **options)
            if why and exact:
                raise SpError(f"{path} cannot be {name}: {why}.")
            last = f"{path}: {why}" if why and isinstance(parts[path], _LAYERS) else last
            if not why and path not in found:
                found.append(path)
    if not found:
        raise SpError(f"No layer of this network can be {name} ({last}).")
    return found


def parametrized(module: nn.Module) -> dict[str, Parameterization]:
    """Layer name to its parametrisation, for those of this room.

    >>> parametrized(apply(nn.Sequential(nn.Conv2d(4, 4, 1)), "average"))["0"].kept
    10
    """
    found = {}
    for path, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            own = part.parametrizations.weight[0]  # type: ignore[union-attr, index]
            if isinstance(own, Parameterization):
                found[path] = own
    return found


def free_parameters(module: nn.Module, trained: bool = False) -> int:
    """How many numbers the network needs once trained; with ``trained``, how many are trained.

    They differ where training has more freedom than the result: ``average`` trains n² numbers of which n (n + 1) / 2
    are kept. Unique parameters outside the parametrisations count as they are.

    >>> net = apply(nn.Sequential(nn.Conv2d(4, 4, 1)), "average")
    >>> free_parameters(net), free_parameters(net, trained=True)  # 4 biases
    (14, 20)
    """
    every = {id(own): own.numel() for own in module.parameters()}
    if trained:
        return sum(every.values())
    kept = 0
    for path, own in parametrized(module).items():
        kept += own.kept
        for part in module.get_submodule(path).parametrizations.weight.parameters():  # type: ignore[union-attr, index]
            every.pop(id(part), None)
    return kept + sum(every.values())
