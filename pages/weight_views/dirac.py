"""The identity in the convolutions: its share, a and b of the channels, and folding it away step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import streamlit as st

import sp_core as sp
from pages.ui import cache, epochs, live, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core import parameterizations
from sp_core.figures import dirac as figures
from sp_core.figures.weights import identity_bars, records, shown_width

MEANING = """
A DiracNet writes every weight as `Ŵ = diag(a) I + diag(b) W / ‖W‖`: the delta `I` hands each channel on unchanged
(1 in the middle of the kernel from a channel to itself, else 0), `W / ‖W‖` has filters of length 1, and a and b are one
number each a channel. So a plain chain of layers starts near the identity and trains like a residual network; once
trained, all of it and BatchNorm fold into one weight and a bias.

Any weight can be written so. *Share of the identity* is the energy of `diag(a) I`; a random weight has the share that
the marks show. Layers inside residual blocks need little: the shortcut hands the channels on. Of a DiracNet a and b
are parameters; of any other weight a is what the delta reads, and b the length of the rest.

Each step of folding is another way to compute the same layer. The *difference* is measured: the largest one between the
outputs computed that way (in 32 bits) and the network's own, after BatchNorm, on this image.
"""
SOURCE = "Zagoruyko and Komodakis 2017, DiracNets, arXiv:1706.00388"


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """The share in every layer, one layer's numbers and slices, its folding, and that of the whole network."""
    rows = cache.answer("identity", (here.net.identity,), lambda: sp.weights.identity_shares(here.net))
    able = [row for row in rows if row.reason is None]
    if not able:
        why = f": {rows[0].layer}, for one, has {rows[0].reason}" if rows else ""
        st.info(f"No convolution of this network can hold an identity{unmarked(why)}.", icon=":material/grid_off:")
        return
    st.markdown("**Share of the identity in each convolution**")
    show.figure(identity_bars(able), alt="Share of the identity in each convolution", height=340)
    best = max(range(len(able)), key=lambda index: _beyond(able[index]))
    layer = choose("Layer", [row.layer for row in able], "dirac-layer", index=best, width=320)
    image = here.seen if here.net.has_graph else None
    key = (*here.key, layer) if here.net.has_graph else (here.net.identity, layer)
    made = cache.answer("folding", key, lambda: sp.weights.folding(here.net, layer, image))
    _numbers(made, next(row for row in able if row.layer == layer))
    _slices(made)
    _steps(made)
    if here.net.has_graph:
        _whole(here)
    show.explain("What you are looking at", MEANING, SOURCE)
    show.provenance(here, layer=layer)
    last = made.steps[-1]
    numbers = {"a": made.a.numpy(), "b": made.b.numpy(), "weight": last.weight.numpy()}
    code = f"import sp_core as sp\n\nnet = {here.code}\nprint(sp.weights.identity_shares(net))\n"
    code += f"for step in sp.weights.folding(net, {layer!r}).steps:\n    print(step.formula, step.weight.shape)"
    show.downloads(
        f"dirac-{layer}",
        numbers=numbers if last.bias is None else {**numbers, "bias": last.bias.numpy()},
        table=records(able),
        code=code,
    )


def _beyond(row: sp.weights.Dirac) -> float:
    """By how many times the spread of random weights a share exceeds theirs."""
    return (row.diagonal - row.diagonal_expected) / (row.diagonal_high - row.diagonal_expected)


def _numbers(made: sp.weights.Folding, row: sp.weights.Dirac) -> None:
    """The share of the identity in the layer, and a and b of its channels."""
    left, right = st.columns([1, 3], gap="large")
    with left:
        random = f"random: {row.diagonal_expected:.2%}"
        st.metric("Energy in diag(a) I", f"{row.diagonal:.1%}", random, "off", delta_arrow="off")
        st.metric("Mean of a", f"{float(made.a.mean()):+.3f}")
        st.metric("Mean of b", f"{float(made.b.mean()):+.3f}")
        words = "a and b are parameters of this layer." if made.trained else "a and b are read off the weight."
        st.caption(f":material/info: {words}")
    with right:
        alt = f"a and b of the {len(made.a)} channels of {made.layer}"
        show.figure(figures.channel_numbers(made.a, made.b), alt=alt, height=300)


def _slices(made: sp.weights.Folding) -> None:
    """A kernel and a matrix of the delta beside those of the weight."""
    weight = next(step.weight for step in made.steps if step.formula.startswith("diag(a) I"))
    out, inputs, *kernel = weight.shape
    st.markdown("**The delta I beside the weight Ŵ: one kernel, and one matrix of channels**")
    with st.container(horizontal=True):
        pair = (
            pick.number("From channel", key="dirac-in", top=inputs - 1),
            pick.number("To channel", key="dirac-out", top=out - 1),
        )
        names = (
            ("row", "column") if len(kernel) == 2 else ("position",) if len(kernel) == 1 else ("slice", "row", "column")
        )
        tap = tuple(
            pick.number(f"Kernel {name}", key=f"dirac-{name}", top=size - 1, default=size // 2)
            for name, size in zip(names, kernel, strict=True)
        )
    columns = st.columns([1, 1, 2, 2], gap="medium")
    for column, (title, picture) in zip(columns, figures.slices(weight, pair[::-1], tap), strict=True):
        with column:
            wide = shown_width(picture, 280, 280, 48)
            show.picture(picture, f"{title} of {made.layer}", width=wide, caption=title)


def _steps(made: sp.weights.Folding) -> None:
    """W, its normalised filters, with b, with the identity, with BatchNorm: each with what was measured."""
    layers = unmarked(made.layer) + (f" with {unmarked(made.norm)}" if made.norm else "")
    st.markdown(f"**Folding {layers}: {len(made.steps)} ways to compute the same**")
    for column, (index, step) in zip(st.columns(len(made.steps), gap="small"), enumerate(made.steps), strict=True):
        with column:
            picture, limit = figures.step_picture(step)
            alt = f"{step.formula} of {made.layer}, the matrix in the middle of the kernels"
            show.picture(picture, alt, width=shown_width(picture, 220, 220, 24), caption=f"darkest: ±{limit:.3g}")
            st.markdown(f"`{step.formula}`")
            apart = [
                *(["× b / ‖W‖" if index == 0 else "× b"] if step.scale is not None else []),
                *(["+ a · input"] if step.identity is not None else []),
                *(["+ bias"] if step.bias is not None and step.norm else []),
                *(["BatchNorm"] if step.norm else []),
            ]
            st.caption(
                f"then {', '.join(apart)}" if apart else "one weight" + (" and a bias" * (step.bias is not None))
            )
            if made.differences:
                st.metric("Largest difference", f"{made.differences[index]:.1e}")
    if made.differences:
        said = "" if made.norm else " No BatchNorm reads this layer alone, so the last step is the weight itself."
        st.caption(f"Measured on this image, where the largest output is {made.largest:.3g}.{said}")
    else:
        st.caption(
            ":material/account_tree: Nothing can be run, so nothing is measured, and BatchNorm is not looked for."
        )


def _whole(here: Selection) -> None:
    """Every parametrisation and every BatchNorm folded: what is left, and how much the outputs moved."""
    st.subheader("The whole network, folded")

    def steps() -> Iterator[sp.weights.FoldedNetwork]:
        yield sp.weights.folded(here.net, here.seen)

    made, _ = live.run(
        steps,
        key="folded",
        settings=here.key,
        total=1,
        draw=lambda step: None,
        text=lambda step: "folded and run",
        alt="",
        label="Fold it, and measure",
    )
    if made is None:
        return
    columns = st.columns(3)
    was = f"of {made.norms_before}"
    columns[0].metric("BatchNorms left", f"{made.norms}", was, "off", delta_arrow="off")
    share = f"{made.parameters / made.parameters_before:.1%} of {made.parameters_before:,}"
    columns[1].metric("Parameters", f"{made.parameters:,}", share, "off", delta_arrow="off")
    share = f"the largest is {made.largest:.3g}"
    columns[2].metric("Largest difference of an output", f"{made.difference:.1e}", share, "off", delta_arrow="off")
    if _dirac(here.net):
        st.download_button(
            "Folded checkpoint (.safetensors)", lambda: _file(made), "folded.safetensors", icon=":material/download:"
        )
        st.caption("A plain chain of convolutions: `sp.load` knows a folded DiracNet by its names and shapes.")


def _dirac(net: Any) -> bool:
    """Whether it is a DiracNet."""
    return any(isinstance(own, parameterizations.Dirac) for own in parameterizations.parametrized(net.module).values())


def _file(made: sp.weights.FoldedNetwork) -> bytes:
    from safetensors.torch import save

    state = made.network.module.state_dict()
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, {"format": "pt"})
