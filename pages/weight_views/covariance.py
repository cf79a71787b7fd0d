"""Which filters of two layers respond together: the inter-layer covariance of Deep Roots, and its blocks."""

from __future__ import annotations

from hashlib import sha256

import streamlit as st
from torch import Tensor

import sp_core as sp
from pages.patch_views import data
from pages.ui import cache, epochs, live, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from sp_core.figures import laboratory as figures
from sp_core.figures.weights import shown_width

COUNTS = (32, 64, 128, 256, 512)
MEANING = """
Each pixel of the two feature maps is a sample (the smaller map enlarged to the larger), each channel a variable. A
cell says how one filter of the first layer and one of the second vary together, from −1 (blue) over 0 (white) to 1
(red); a channel that never changes is white.

*Squared correlation in blocks* is the share that lies in g equal blocks along the diagonal: 1 where filters vary
only with those of their own group, 1 / g by chance. A network that was trained with g filter groups has it near 1,
for its filters learn to work within their group. In one trained without groups the order of the filters is
arbitrary, and the share stays near chance: to divide such a network into groups afterwards would cut connections
that it uses. *Reordered* puts the channels of both layers in the order with most in the blocks; a search finds some in
any matrix, so it is told beside what it finds in matrices with the same sums and shuffled entries.
"""
SOURCE = "Ioannou, Robertson, Cipolla and Criminisi, Deep Roots, CVPR 2017, arXiv:1605.06489"


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """Two layers, images, the matrix while it grows, and the share of its blocks."""
    if not here.net.has_graph:
        st.info(
            "How filters respond together is measured on images, which need a forward pass; of this file only the "
            "weights are known. The views of spectra, low rank and symmetry work without.",
            icon=":material/account_tree:",
        )
        return
    layers = [row.name for row in here.net.layers if row.is_map and row.kind.startswith("Conv")]
    if len(layers) < 2:
        st.info("Two convolutions with maps are compared, and this network has fewer.", icon=":material/grid_off:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = choose("First layer", layers[:-1], "cov-first", width=240)
        after = layers[layers.index(first) + 1 :]
        second = choose("Second layer", after, "cov-second", width=240)
        source = data.choose()
        count = choose("How many", COUNTS, "cov-count", index=1, width=110)
    dataset = data.dataset(source)
    last, _ = live.run(
        lambda: sp.weights.covariance_steps(here.net, first, second, dataset, count, batch=16),
        key="covariance",
        settings=(here.net.identity, first, second, source, dataset.fingerprint, count),
        total=-(-min(count, len(dataset)) // 16),
        draw=figures.covariance,
        text=lambda step: f"{step.seen} of {step.total} images, {step.samples:,} pixels",
        alt=f"Correlation of {first} and {second} so far",
        label=f"Compare on {min(count, len(dataset))} images",
        width=figures.SIDE,
    )
    table: list[dict[str, float]] = []
    if last is not None:
        table = _answer(last, first, second)
    show.explain("What you are looking at", MEANING, SOURCE)
    show.provenance(here, layers=f"{first} and {second}", images=f"{data.label(source)}, {count}")
    show.downloads(
        f"covariance-{first}-{second}",
        picture=(lambda: figures.covariance(last)) if last is not None else None,
        numbers={"covariance": last.matrix.numpy(), "correlation": last.correlation.numpy()} if last else None,
        table=table or None,
        code=f"import sp_core as sp\n\nnet = {here.code}\nimages = sp.datasets.open({source!r})\n"
        f"*_, last = sp.weights.covariance_steps(net, {first!r}, {second!r}, images, {count})\n"
        "print(last.correlation, last.block_share(2))",
    )


def _answer(last: sp.weights.Covariance, first: str, second: str) -> list[dict[str, float]]:
    """The matrix with the chosen blocks, and the share for every number of groups."""
    table = figures.block_shares(last)
    left, right = st.columns(2, gap="large")
    with right:
        if table:
            groups = choose("Groups", [row["groups"] for row in table], "cov-groups", width=120)
            own = next(row for row in table if row["groups"] == groups)
            st.metric(
                "Squared correlation in the blocks",
                f"{own['share in blocks']:.1%}",
                f"{own['by chance']:.1%} by chance",
                "off",
                delta_arrow="off",
            )
            order = _order(last, groups)
            plot = figures.block_share_curve(table, groups)
            show.figure(plot, alt=f"Share in the blocks for {len(table)} numbers of groups", height=380)
        else:
            groups, order = 1, None
            rows, columns = last.matrix.shape
            st.info(f"{rows} and {columns} channels have no common divisor, so there are no equal groups.")
    with left:
        picture = figures.covariance(last, groups, order)
        words = f"{first} down, {second} across{', reordered' if order else ''}; {last.samples:,} pixels of "
        words += f"{last.seen} images; blue −1, red 1"
        wide = shown_width(picture, figures.SIDE, figures.SIDE)
        show.picture(picture, f"Correlation of {first} and {second}", width=wide, caption=words)
    return table


def _order(last: sp.weights.Covariance, groups: int) -> tuple[Tensor, Tensor] | None:
    """The order in which blocks appear, where it is asked for, and how much a search finds without groups."""
    orders = ["as trained", "reordered"]
    chosen = st.segmented_control(
        "Order of channels", orders, default=orders[0], key="cov-order", bind="query-params", required=True
    )
    energy = last.correlation.square()
    if chosen == orders[0] or groups > sp.weights.grouped.MOST or not float(energy.sum()):
        return None
    key = (sha256(energy.numpy().tobytes()).hexdigest(), groups)
    found = cache.answer("cov-groups", key, lambda: list(sp.weights.grouping_steps(energy, groups, 3))[-1])
    best = max(learned for learned, _ in found.without)
    words = f"at most {best:.1%} in {len(found.without)} shuffled matrices"
    st.metric("In the blocks, reordered", f"{found.learned:.1%}", words, "off", delta_arrow="off")
    return found.rows, found.columns
