"""One trained weight written by a parametrisation: W, its free numbers, the weight Ŵ they give, and what is lost."""

from __future__ import annotations

from typing import Any

import streamlit as st
from torch import nn

import sp_core as sp
from pages.ui import cache, epochs, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from pages.weight_views import measured
from sp_core import parameterizations
from sp_core.figures import laboratory as figures
from sp_core.figures.weights import records, shown_width

FAMILIES = ("symmetric", "low rank", "Dirac", "groups")
ALL = "every layer that can"
MEANING = """
A parametrisation writes a weight Ŵ by free numbers *v*, and training moves *v*. Here nothing is trained: *v* is
chosen so that Ŵ is as near to the trained W as the formula can write (for `lr`, `lr-join` and `cp`, as near as a
search finds). The error is `‖W − Ŵ‖ / ‖W‖`; a weight that was trained under the constraint has none.

*Free numbers* are what the trained weight needs; *trained* are what training moves. They differ where training has
more freedom than the result: `average` trains n² numbers, of which ½ n (n + 1) are kept. `soft-l1` trains a free W,
prices its asymmetry in the loss, and is made symmetric once trained; the Dirac forms can write nearly any weight,
and spare training the identity.

Low-rank and spatial forms are shown as up to 12 × 12 kernels, all others as the `[out, in]` matrix at the middle of
the kernels; blue is negative, red positive, white zero. Of tied weights *v* is shown where an entry first reads a
number, and white where an entry repeats one. Matrices of more than 256 rows or columns are shown as means of
blocks.
"""


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """A parametrisation, a layer, the three matrices, the counts, and what the network then says."""
    with st.container(horizontal=True):
        family = choose("Family", FAMILIES, "family", width=150)
        names = parameterizations.names(family)
        usual = names.index("triangular") if "triangular" in names else 0
        name = choose("Parametrisation", names, "parametrisation", index=usual, width=240)
        own = parameterizations.entry(name)
        options = {"groups": 2} if "groups" in own.options else {}
        if options:
            options["groups"] = max(2, pick.number("Groups", key="own-groups", top=64, default=2))
        plain = sp.weights.plain(here.net)
        able, why = _able(plain.module, name, options)
        layer = choose("Layer", able, "own-layer", index=_square(plain.module, able), width=260) if able else None
    st.markdown(f"**{unmarked(name)}:** `{own.formula}`")
    st.caption(f"{own.source}.")
    if layer is None:
        st.info(f"No layer of this network can have it: {unmarked(why)}.", icon=":material/grid_off:")
        return
    if own.options.get("rank"):  # the eigen form's follows from the shape
        options["rank"] = _share(name)
    key = (here.net.identity, name, layer, tuple(options.items()))
    made = cache.answer("parametrised", key, lambda: _written(plain, name, layer, options))
    _numbers(made)
    _pictures(layer, made)
    whole = st.segmented_control(
        "Then in the whole network", ["this layer", ALL], default="this layer", key="own-where", bind="query-params",
        required=True,
    )  # fmt: skip
    layers = [layer] if whole == "this layer" else None
    if here.net.has_graph:
        _consequences(here, name, layers, options)
    else:
        st.caption(":material/account_tree: What the network then says needs a forward pass; only weights are known.")
    show.explain("What you are looking at", MEANING, own.source)
    show.provenance(here, parametrisation=name, layer=layer, **options)
    words = "".join(f", {option}={value}" for option, value in options.items())
    show.downloads(
        f"{name}-{layer}",
        numbers={"W": made["weight"], "rebuilt": made["rebuilt"], **{f"v{i}": v for i, v in enumerate(made["parts"])}},
        code=f"import sp_core as sp\n\nnet = {here.code}\n"
        f"made = sp.weights.constrained(net, {name!r}, {layers}{words})\n"
        "print(made.kept, made.before)\nfor row in made.layers:\n    print(row.layer, row.error, row.kept)",
    )


def _able(module: nn.Module, name: str, options: dict[str, Any]) -> tuple[list[str], str]:
    """The layers whose weight can be written so, and why the first cannot, where none can."""
    able, why = [], "it has no convolution and no linear layer"
    for path, part in module.named_modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            refused = parameterizations.obstacle(part, name, **options)
            if refused is None:
                able.append(path)
            elif not able and why.startswith("it has no convolution and"):
                why = f"{path}, for one: {refused}"
    return able, why


def _square(module: nn.Module, layers: list[str]) -> int:
    """Where the first layer with as many outputs as inputs is: there a matrix shows most; 0 where none is."""
    shapes: list[Any] = [module.get_submodule(layer).weight.shape for layer in layers]
    return next((index for index, shape in enumerate(shapes) if shape[0] == shape[1]), 0)


def _share(name: str) -> float:
    """The rank of a low-rank form, as a share of the highest that a weight has."""
    usual = 10 if name == "cp" else 50  # a search whose time grows with the rank
    percent = st.slider(
        "Rank: % of the highest", 5, 95, value=usual, step=5, key=f"share-{name}", bind="query-params", width=320
    )
    return float(percent) / 100


def _written(net: Any, name: str, layer: str, options: dict[str, Any]) -> dict[str, Any]:
    """The weight, its nearest Ŵ, the free numbers, their counts, and the pictures."""
    was = net.module.get_submodule(layer).weight.detach().cpu()
    module = parameterizations.apply(net.clone(), name, [layer], **options)
    part = module.get_submodule(layer)
    own = parameterizations.parametrized(module)[layer]
    parts = [value.detach().cpu() for value in part.parametrizations.weight.parameters()]
    now = part.weight.detach().cpu()
    (row,) = sp.weights.constrained(net, name, [layer], **options).layers
    return {
        "weight": was.numpy(),
        "rebuilt": now.numpy(),
        "parts": [value.numpy() for value in parts],
        "pictures": figures.written(was, now, own.cpu(), parts),
        "error": row.error,
        "kept": own.kept,
        "trained": own.trained,
    }


def _numbers(made: dict[str, Any]) -> None:
    """What is lost, and how many numbers are free."""
    entries = made["weight"].size
    columns = st.columns(4)
    columns[0].metric("Relative error", f"{made['error']:.3f}")
    columns[1].metric("Energy kept", f"{max(0.0, 1 - made['error'] ** 2):.1%}")
    share = f"{made['kept'] / entries:.1%} of {entries:,}"
    columns[2].metric("Free numbers", f"{made['kept']:,}", share, "off", delta_arrow="off")
    columns[3].metric("Trained", f"{made['trained']:,}")


def _pictures(layer: str, made: dict[str, Any]) -> None:
    """W, the free numbers, and Ŵ side by side."""
    with st.container(horizontal=True):
        for title, picture in made["pictures"]:
            show.picture(picture, f"{title}; {layer}", width=shown_width(picture, 300, 300, 24), caption=title)


@st.cache_resource(max_entries=2, show_spinner=False)
def _constrained(_net: Any, identity: Any, name: str, layers: tuple[str, ...] | None, options: Any) -> Any:
    del identity  # in the cache's key, since Streamlit cannot hash a network
    return sp.weights.constrained(_net, name, layers, **dict(options))


def _consequences(here: Selection, name: str, layers: list[str] | None, options: dict[str, Any]) -> None:
    """How often the network with the constrained weights still says the same, on a data set."""
    settings = (name, tuple(layers) if layers else None, tuple(options.items()))

    def made() -> sp.weights.Constrained:
        return _constrained(here.net, here.net.identity, *settings)

    last = measured.on_images(
        here,
        "constrained-trial",
        (here.net.identity, *settings),
        lambda: made().network.module,
        "Project, and try",
    )
    if last is None:
        return
    with cache.turn():
        found = made()
    words = f"{found.kept / found.before:.1%} of {found.before:,}"
    st.metric("Numbers of the whole network", f"{found.kept:,}", words, "off", delta_arrow="off")
    st.caption("Projected once, not trained again: a network trained under the constraint from the start loses less.")
    st.dataframe(records(found.layers), hide_index=True)
