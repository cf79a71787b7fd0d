"""One trained weight written by a parametrisation: W, its free numbers, the weight Ŵ they give, and what is lost."""

from __future__ import annotations

from typing import Any

import streamlit as st
from torch import nn

import sp_core as sp
import sp_core.parameterizations as parameterizations
from pages.patch_views import data
from pages.ui import cache, epochs, live, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from pages.ui.text import unmarked
from sp_core.figures import laboratory as figures
from sp_core.figures.weights import matrix, records, shown_width

FAMILIES = ("symmetric", "low rank", "Dirac", "groups")
IMAGES = 256
ALL = "every layer that can"
MEANING = """
A parametrisation writes a weight Ŵ by free numbers *v*, and training moves *v*. Here nothing is trained: *v* is chosen so
that Ŵ is as near to the trained W as the formula can write (for `lr`, `lr-join` and `cp`, as near as a search finds). The
error is `‖W − Ŵ‖ / ‖W‖`; a weight that was trained under the constraint has none.

*Free numbers* are what the trained weight needs; *trained* are what training moves. They differ where training has more
freedom than the result: `average` trains n² numbers, of which ½ n (n + 1) are kept. `soft-l1` and the Dirac forms can
write any weight: the first prices asymmetry in the loss, the second adds an identity that training need not learn.

Matrices have one row an output, and across it inputs and kernel positions; blue is negative, red positive. Of tied
weights *v* is shown where an entry first reads a number; grey entries repeat one. Larger matrices are means of blocks.
"""


def draw(here: Selection, _found: epochs.Followed | None) -> None:
    """A parametrisation, a layer, the three matrices, the counts, and what the network then says."""
    with st.container(horizontal=True):
        family = choose("Family", FAMILIES, "family", width=150)
        name = choose("Parametrisation", parameterizations.names(family), "parametrisation", width=240)
        own = parameterizations.entry(name)
        options = {"groups": 2} if "groups" in own.options else {}
        if options:
            options["groups"] = max(2, pick.number("Groups", key="own-groups", top=64, default=2))
        able, why = _able(here.net.module, name, options)
        layer = choose("Layer", able, "own-layer", width=260) if able else None
    st.markdown(f"**{unmarked(name)}:** `{own.formula}`")
    st.caption(f"{own.source}.")
    if layer is None:
        st.info(f"No layer of this network can have it: {unmarked(why)}.", icon=":material/grid_off:")
        return
    if "rank" in own.options:
        options["rank"] = _rank(name, here.net.module.get_submodule(layer).weight)
    key = (here.net.identity, name, layer, tuple(options.items()))
    made = cache.answer("parametrised", key, lambda: _written(here.net, name, layer, options))
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
        code=f"import sp_core as sp\n\nnet = {here.code}\nmade = sp.weights.constrained(net, {name!r}, {layers}{words})\n"
        "print(made.kept, made.before)\nfor row in made.layers:\n    print(row.layer, row.error, row.kept)",
    )


def _able(module: nn.Module, name: str, options: dict[str, Any]) -> tuple[list[str], str]:
    """The layers whose weight can be written so, convolutions with kernels first, and why the first cannot."""
    able, why = [], "it has no convolution and no linear layer"
    for path, part in module.named_modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            refused = parameterizations.obstacle(part, name, **options)
            if refused is None:
                able.append(path)
            elif not able and why.startswith("it has no convolution and"):
                why = f"{path}, for one: {refused}"
    return able, why
