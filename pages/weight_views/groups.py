"""Filter groups: the connections that a structure leaves, and whether a trained layer has groups in it."""

from __future__ import annotations

import streamlit as st
from PIL import Image
from torch import Tensor

import sp_core as sp
from pages.ui import cache, epochs, live, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.figures import laboratory as figures
from sp_core.figures.weights import matrix, shown_width

SHOWN = 4  # channels of the connection maps
SIDES = (3, 4, 5, 6, 8)
MEANING = """
**Connections.** One row an output pixel of one channel, one column an input pixel, channel by channel. A fully
connected layer may read anything; a local one reads what is under its kernel; a convolution does so with the same
numbers everywhere (bands of equal diagonals); with groups a channel reads its own group only (blocks). The first two
are drawn at random, for a convolution has no such numbers; the others are the weight of this layer.

**Imposed.** The energy of a weight is the sum of its squares. To cut the layer into g groups in the order that its
channels have keeps what lies in the blocks: 1 / g of it by chance. **Learned.** The order of channels means nothing, so
outputs and inputs may be reordered until most energy is in the blocks. **Condensed.** Each group of outputs chooses its
inputs for itself, as CondenseNet does while it trains; several may choose the same.

A search finds blocks in noise, too. So it is given matrices without groups: the same sums of rows and columns, and what
is left of each entry shuffled. Groups are there only where this layer's bar is above that mark, which reaches from the
least to the most that was found in them; of imposed groups it shows random orders, ± 2 standard deviations.
"""
SOURCE = (
    "Ioannou et al., Deep Roots, CVPR 2017, arXiv:1605.06489; Huang et al., CondenseNet, CVPR 2018, arXiv:1711.09224"
)


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """A layer and a number of groups; its connection maps; its groups, imposed and learned, beside noise."""
    able = cache.answer("groupable", (here.net.identity,), lambda: _able(here.net))
    if not able:
        st.info("No layer of this network can be divided: none has one group and channels with a common divisor.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = next((index for index, name in enumerate(able) if able[name][1] > 2), 0)
        layer = choose("Layer", list(able), "group-layer", index=first, width=300)
        counts = [count for count in figures.group_counts(*able[layer][0]) if count <= sp.weights.grouped.MOST]
        usual = counts.index(4) if 4 in counts else 0
        groups = choose("Groups", counts, "group-count", index=usual, width=120)
    energy = cache.answer("energies", (here.net.identity, layer), lambda: sp.weights.energies(here.net, layer))
    _maps(here, layer, able[layer])
    st.subheader("Groups in the trained weight")
    draws = sp.weights.grouped.DRAWS
    last, _ = live.run(
        lambda: sp.weights.grouping_steps(energy, groups),
        key="grouping",
        settings=(here.net.identity, layer, groups),
        total=draws + 1,
        draw=lambda step: None,
        text=lambda step: f"{len(step.without)} of {draws} matrices without groups searched as well",
        alt="",
        start=energy.numel() * groups <= 40_000,
        label="Look for groups",
    )
    if last is not None:
        _answer(last, energy, layer)
    show.explain("What you are looking at", MEANING, SOURCE)
    show.provenance(here, layer=layer, groups=groups)
    code = f"import sp_core as sp\n\nnet = {here.code}\n*_, last = sp.weights.grouping_steps("
    code += f"sp.weights.energies(net, {layer!r}), {groups})\nprint(last.imposed, last.learned, last.found)"
    show.downloads(
        f"groups-{layer}-{groups}",
        picture=(lambda: figures.outlined(energy.sqrt()[last.rows][:, last.columns], groups)) if last else None,
        numbers={"rows": last.rows.numpy(), "columns": last.columns.numpy(), "energy": energy.numpy()}
        if last
        else None,
        code=code,
    )


def _able(net: sp.Network) -> dict[str, tuple[tuple[int, int], int]]:
    """Layers that can be divided: ``(out, in)``, and the number of axes of their weight."""
    rows = {row.layer: row for row in sp.weights.matrices(net) if row.groups == 1}
    sizes = {name: ((row.tensor.shape[0], row.tensor.shape[1]), row.tensor.ndim) for name, row in rows.items()}
    return {
        name: own
        for name, own in sizes.items()
        if any(n <= sp.weights.grouped.MOST for n in figures.group_counts(*own[0]))
    }


def _maps(here: Selection, layer: str, own: tuple[tuple[int, int], int]) -> None:
    """The layer's connections on a small image, with more and with less structure."""
    (out, inputs), axes = own
    weight = sp.weights.find(here.net, layer).tensor
    if axes != 4 or any(side % 2 == 0 for side in weight.shape[2:]):
        st.caption("Connection maps are drawn of two-dimensional convolutions with an odd kernel.")
        return
    st.subheader("Its connections")
    side = choose("Side of the image", SIDES, "map-side", index=2, width=150)
    most = min(SHOWN, out, inputs)
    shown = most - most % 2 or 1
    key = (here.net.identity, layer, side, shown)
    rows = cache.answer(
        "maps", key, lambda: sp.weights.maps(weight[:shown, :shown], (side, side), 2 if shown > 1 else 1)
    )
    top = max(float(row.matrix.abs().max()) for row in rows if not row.drawn) or 1.0
    for column, row in zip(st.columns(len(rows), gap="medium"), rows, strict=True):
        with column:
            picture = matrix(row.matrix, None if row.drawn else top)
            words = f"{row.name}{' (random numbers)' if row.drawn else ''}"
            show.picture(picture, f"Connections, {words}", width=shown_width(picture, 300, 300), caption=words)
            st.caption(f"**{row.connections:,}** connections, **{row.numbers:,}** numbers")
    st.caption(
        f"{unmarked(layer)}: its first {shown} input and output channels on an image of {side}×{side} pixels with "
        "zeros around it; inputs across, outputs down, blue negative, red positive."
    )


def _answer(last: sp.weights.Grouping, energy: Tensor, layer: str) -> None:
    """The matrix as it is and reordered, and the three shares beside those without groups."""
    roots = energy.sqrt()  # lengths of the kernels: energies would hide all but the largest
    left, right = st.columns([3, 2], gap="large")
    with left, st.container(horizontal=True):
        for title, values in (
            (f"as trained: {last.imposed:.1%} in {last.groups} blocks", roots),
            (f"reordered: {last.learned:.1%}", roots[last.rows][:, last.columns]),
        ):
            picture = figures.outlined(values, last.groups, float(roots.max()))
            show.picture(picture, f"{layer} {title}", width=_width(picture), caption=title)
    with right:
        show.figure(figures.grouping_bars(last), alt=f"Energy that {last.groups} groups keep of {layer}", height=380)
    if last.without:
        best = max(learned for learned, _ in last.without)
        verdict = "**More than in any of them: channels go together.**" if last.found else "No groups are to be seen."
        st.markdown(
            f"The search puts **{last.learned:.1%}** of the energy into {last.groups} blocks; in {len(last.without)} "
            f"matrices without groups at most **{best:.1%}**. {verdict}"
        )
    st.caption("Each cell is the length of a kernel, outputs down, inputs across; darkest is the longest.")


def _width(picture: Image.Image) -> int:
    """At most 360 pixels a side: it has been enlarged already."""
    return round(picture.width * min(1.0, 360 / max(picture.size)))
