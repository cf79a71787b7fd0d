"""How the weights of one training run move from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sp_core.checkpoints.runs import Snapshot
from sp_core.checkpoints.snapshots import TrainingRun, epoch_of
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.weights.matrices import matrices
from sp_core.weights.spectra import spectrum_steps
from sp_core.weights.symmetry import KINDS, Symmetry, symmetry


@dataclass(frozen=True)
class Ranks:
    """The largest singular value of a matrix, its Frobenius norm, and its effective and stable rank."""

    sigma: float
    norm: float
    effective: float
    stable: float


@dataclass(frozen=True)
class Moment:
    """One checkpoint of a run.

    Attributes:
        label: what tells it from the others: ``"3"``, ``"best"``.
        position: its epoch (or step), from its name or else from what it holds; None where neither says.
        file: its name.
        fingerprint: of its weights; "" where it could not be read.
        record: what training left in it (epoch, accuracy …).
        ranks: by layer.
        symmetries: by layer and kind, those that make sense.
        reason: why it could not be read, or "".
    """

    label: str
    position: int | None
    file: str
    fingerprint: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    ranks: Mapping[str, Ranks] = field(default_factory=dict)
    symmetries: Mapping[str, Mapping[str, Symmetry]] = field(default_factory=dict)
    reason: str = ""


def moment(net: Network, snapshot: Snapshot, layers: tuple[str, ...] | None = None) -> Moment:
    """What is followed over a run, of one of its networks; of all weight matrices, or those of ``layers``."""
    ranks = {
        row.layer: Ranks(float(row.values[0]), row.frobenius, row.effective_rank, row.stable_rank)
        for row in spectrum_steps(net, layers)
    }
    order = [row for row in matrices(net) if row.layer in ranks]
    found = {row.layer: [symmetry(row, kind) for kind in KINDS] for row in order}
    return Moment(
        snapshot.label,
        _position(snapshot, net.record),
        snapshot.file,
        net.fingerprint,
        net.record,
        {row.layer: ranks[row.layer] for row in order},
        {layer: {one.kind: one for one in rows if one.reason is None} for layer, rows in found.items()},
    )


def unreadable(snapshot: Snapshot, error: SpError) -> Moment:
    """The moment of a file that cannot be read."""
    return Moment(snapshot.label, _position(snapshot, {}), snapshot.file, reason=str(error))


def over_epochs(run: TrainingRun, layers: tuple[str, ...] | None = None, device: str | None = None) -> Iterator[Moment]:
    """The moments of a run one by one, earliest first; a file that cannot be read is a moment that says why."""
    like: Network | None = None
    for snapshot in run.snapshots:
        try:
            like = run.load(snapshot, like, device)
            one = moment(like, snapshot, layers)
        except SpError as error:
            one = unreadable(snapshot, error)
        yield one


def _position(snapshot: Snapshot, record: Mapping[str, Any]) -> int | None:
    if snapshot.position is None:
        return epoch_of(record)
    return next((number for number in snapshot.position if number >= 0), None)
