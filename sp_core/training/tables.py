"""The lectures' comparisons on CIFAR-10, as data: every row of a table is trained with the same budget.

A row is an architecture of the zoo with its options; what was published of it stands beside, with its source.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from sp_core.errors import SpError
from sp_core.training.recipes import Recipe


@dataclass(frozen=True)
class Row:
    """One network of a table. ``error``: the published test error in percent, ``None`` where there is none.

    ``exit``: which exit of an early-exit network the row is about (0 is the first); rows that differ in nothing else
    are one training run. ``penalty``: see :class:`Recipe`. ``keep``: the weights of its first seed are bundled, under
    this name.
    """

    label: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    error: float | None = None
    exit: int | None = None
    penalty: float = 0.0
    keep: str = ""


@dataclass(frozen=True)
class Table:
    """Rows to compare. ``source``: of the published numbers. ``images``: shown in training, repeats counted.

    ``batch`` images an update, ``learning_rate`` the highest (Nesterov momentum 0.9, weight decay 5e-4 of everything
    but 1-dimensional parameters, linear warm-up, cosine to zero).
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    images: int = 250_000
    batch: int = 128
    learning_rate: float = 0.1

    def recipe(self, row: Row, seed: int) -> Recipe:
        """How ``row`` is trained from ``seed``.

        >>> from dataclasses import replace
        >>> replace(TABLES["symmetric"], images=12_800).recipe(TABLES["symmetric"].rows[0], seed=0).steps
        100
        """
        if self.images < self.batch:
            raise SpError(f"images must be at least one batch of {self.batch}, got {self.images}")
        steps = self.images // self.batch
        options = "".join(f"-{key}-{value}" for key, value in sorted(row.options.items()))
        return Recipe(
            name=f"{row.architecture}{options}-{steps}x{self.batch}-seed{seed}",
            architecture=row.architecture,
            steps=steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup=min(200, steps // 8),
            weight_decay=5e-4,
            first_weight_decay=5e-4,
            seed=seed,
            data_seed=seed + 1,
            held_out=10_000,
            measure_every=max(1, steps // 2),
            average=0.99,
            dataset="cifar10",
            options=row.options,
            penalty=row.penalty,
        )


_SYMMETRIC = "wrn-16-1-bottleneck"
_HU = "Zagoruyko's lecture; Hu, Zagoruyko and Komodakis 2018, arXiv:1812.11027 (median of 5 runs of 200 passes)"
_ROOTS = (
    "Ioannou et al., Deep roots, CVPR 2017, results of github.com/yanii/phd-thesis; the low-rank row is of their "
    "ICLR 2016 paper, whose original has 8.12"
)
# The lecture gives no ρ: at these budgets 1e-3 brings W to its transpose (the sum of rates times ρ exceeds |W − Wᵀ|).
_RHO = 1e-3


def _symmetric(label: str, kind: str | None, error: float, **more: Any) -> Row:
    return Row(label, _SYMMETRIC, {} if kind is None else {"symmetry": kind}, error, **more)


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "symmetric",
            "Symmetric weights: WRN-16-1 of bottlenecks",
            _HU,
            (
                _symmetric("baseline", None, 8.49),
                _symmetric("soft L1", "soft-l1", 8.61, penalty=_RHO),
                _symmetric("triangular", "triangular", 8.84),
                _symmetric("average", "average", 8.83, keep="cifar-wrn16-average"),
                _symmetric("eigen", "eigen", 10.23),
                _symmetric("LDL", "ldl", 9.15),
                _symmetric("spatial average", "spatial-average", 9.70),
                _symmetric("spatial and channel average", "spatial-channel-average", 10.20),
            ),
        ),
        Table(
            "dirac",
            "Depth with and without skips: plain, Dirac and residual chains",
            "Zagoruyko and Komodakis 2017, arXiv:1706.00388, which trains them longer and at other widths",
            (
                Row("plain, 16 layers", "diracnet-16-1", {"dirac": False}),
                Row("Dirac, 16 layers", "diracnet-16-1", keep="cifar-dirac16"),
                Row("residual, 16 layers", "wrn-16-1"),
                Row("plain, 34 layers", "diracnet-34-1", {"dirac": False}),
                Row("Dirac, 34 layers", "diracnet-34-1"),
                Row("residual, 34 layers", "wrn-34-1"),
            ),
        ),
        Table(
            "width",
            "Width against depth: wide residual networks",
            "Zagoruyko and Komodakis, Wide residual networks, BMVC 2016",
            (
                Row("16 layers, width 1", "wrn-16-1"),
                Row("16 layers, width 2", "wrn-16-2"),
                Row("40 layers, width 1", "wrn-40-1"),
            ),
        ),
        Table(
            "groups",
            "Low-rank filters and filter groups: network in network",
            _ROOTS,
            (
                Row("original", "nin-cifar", {"batch_norm": True}, 7.89),
                Row("3 × 3, low rank", "nin-cifar-c3-lr", {"batch_norm": True}, 8.22),
                Row("root 4", "nin-cifar-root4", {"batch_norm": True}, 7.98),
                Row("tree 4", "nin-cifar-tree4", {"batch_norm": True}, 8.53),
                Row("column 4", "nin-cifar-column4", {"batch_norm": True}, 8.00),
            ),
        ),
        Table(
            "exits",
            "Early exits: a small MSDNet",
            "Huang et al., Multi-scale dense networks, ICLR 2018 (larger ones)",
            tuple(Row(f"exit {i + 1}", "msdnet-cifar10-small", exit=i) for i in range(4)),
        ),
        Table(
            "skips",
            "With and without skips: ResNet-20 and ResNet-56",
            "Li et al., Visualizing the loss landscape of neural nets, NeurIPS 2018, which trains them for 300 passes",
            (
                Row("20 layers, skips", "cifar-resnet20"),
                Row("20 layers, none", "cifar-resnet20-noshort"),
                Row("56 layers, skips", "cifar-resnet56"),
                Row("56 layers, none", "cifar-resnet56-noshort"),
            ),
        ),
    )
}


def table(name: str) -> Table:
    """The table called ``name``.

    >>> len(table("symmetric").rows)
    8
    """
    if name not in TABLES:
        close = difflib.get_close_matches(name, TABLES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(TABLES)}"
        raise SpError(f"'{name}' is not a table to train; {hint}")
    return TABLES[name]
