"""Guided backprop and attributions: which pixels a class or a unit rests on, and whether to believe it."""

from pages.ui import nav

nav.ensure()

from typing import Any

import streamlit as st

import sp_core as sp
from pages.backprop_views import attributions, second_opinion, target
from pages.ui import cache, show
from pages.ui.sidebar import selection
from sp_core.figures import maps
from sp_core.figures.bars import probabilities
from sp_core.methods import TITLES
from sp_core.rules import compare_backprop

here = selection()
net = here.net
show.title(
    "Backprop and attributions",
    "A signal is sent from a class or a unit back to the pixels of the image, by three rules on one scale.",
)


def top_classes() -> list[tuple[int, float]]:
    """The five most likely classes with their probabilities; none for a network without class scores."""
    if not net.class_count:
        return []
    chances = sp.predict(net, here.seen).float().softmax(1)[0]
    best = chances.topk(min(5, len(chances)))
    return [(int(index), float(chance)) for chance, index in zip(best.values, best.indices, strict=True)]


classes = cache.answer("top-classes", here.key, top_classes)
goal = target.choose(net, classes[0][0] if classes else None)
with st.container(horizontal=True):
    view = st.segmented_control(
        "Colours",
        list(maps.VIEWS),
        format_func=maps.VIEWS.get,
        default="signed",
        key="view",
        bind="query-params",
        required=True,
    )
    shared = st.segmented_control(
        "Scale",
        ["one", "own"],
        format_func={"one": "one for all three", "own": "each its own"}.get,
        default="one",
        key="scale",
        bind="query-params",
        required=True,
        help="On one scale a map that is too faint to see is multiplied by a round number, which is named below it.",
    )

found = cache.answer("backprop", (*here.key, goal), lambda: compare_backprop(net, here.seen, goal))
first = found["gradient"]
signals = {rule: answer.gradient[0].numpy(force=True) for rule, answer in found.items()}
scales = maps.scales(signals, view, shared == "one")
pictures = {"seen": here.crop, **{rule: maps.picture(signals[rule], view, scales[rule]) for rule in signals}}
part = maps.window(list(signals.values()))
if part and st.toggle("Zoom to where the signal arrives", True, key="zoom", bind="query-params"):
    pictures = {name: picture.crop(part) for name, picture in pictures.items()}
    st.caption(f"Rows {part[1]} to {part[3] - 1}, columns {part[0]} to {part[2] - 1} of the image.")
columns = st.columns(4)
with columns[0]:
    st.markdown("**The image**")
    show.picture(pictures["seen"], alt=f"The crop of {here.image_name} that {net.name} is fed with", width="100%")
for column, rule in zip(columns[1:], signals, strict=False):
    with column:
        st.markdown(f"**{TITLES[rule]}**")
        words = f"{TITLES[rule]} of {first.targets[0]} on {here.image_name}"
        show.picture(pictures[rule], alt=words, width="100%", caption=maps.ends(view, scales[rule]))
for note in dict.fromkeys(note for answer in found.values() for note in answer.notes):
    st.info(note, icon=":material/info:")

left, right = st.columns(2, gap="large")
with left:
    if classes:
        rows = [(net.class_name(index), chance) for index, chance in classes]
        show.figure(probabilities(rows), alt=", ".join(f"{n} {c:.0%}" for n, c in rows), height=230, key="top")
with right:
    others = ", ".join(f"{count} {name}" for name, count in first.untouched)
    unit = "logit" if goal.isdecimal() else "activation"
    st.markdown(
        f"**{first.targets[0]}**: {unit} {float(first.values[0]):.4g}. The rules acted on "
        f"**{first.rectifiers} rectifiers** between it and the image"
        + (f"; {others} are no rectifiers and go backwards as in a gradient." if others else ".")
    )
    if captum := second_opinion.on_guided(net.architecture):
        st.markdown(captum)
    if "guided" in found:
        st.warning(
            "Guided backprop and deconvnet show **mostly edge recovery**: they depend little on the class or on what "
            "the upper layers have learnt (Adebayo et al. 2018, Nie et al. 2018). Shuffle the weights below to see it.",
            icon=":material/warning:",
        )
    show.explain(
        "What you are looking at",
        "At every rectifier the signal $R$ on its way back is passed on where the forward input $f$ was positive "
        "(**gradient**), where $R$ itself is positive (**deconvnet**), or where both are (**guided backprop**). "
        "Everything else goes backwards as in a gradient; max-pooling sends the signal to the pixel that won. "
        "Values are per unit of pixel value, pixels from 0 to 1, normalisation included. A unit without a position is "
        "taken where its channel is strongest. A map that is zero everywhere belongs to a unit that is switched off, "
        "or all of its signal was cut; a sentence above says which.\n\n"
        "**SiLU, GELU, Hardswish, ELU, sigmoid and tanh are no rectifiers.** They let negative inputs through in part, "
        "so there is no switch to copy, and cutting at them would be another method under the same name. They go "
        "backwards as in a gradient and are counted above; leaky rectifiers keep their slope. Where a network has no "
        "rectifier at all (EfficientNet, ConvNeXt), only the gradient is defined, and it is shown alone.",
        source="Springenberg et al. 2015, figure 1; Zeiler and Fergus 2014; Simonyan et al. 2014",
    )
    show.provenance(here, target=first.targets[0], scale={"one": "common", "own": "own"}[shared])
    code = (
        f"import sp_core as sp\n\nnet = {here.code}\n"
        "image = net.view(sp.open_image('picture.png'))[None]\n"
        f"signal = sp.backprop(net, image, {goal!r}, rule='guided')  # [1, c, h, w]"
    )
    table: list[dict[str, Any]] = [
        {"rule": rule, "min": values.min(), "max": values.max(), "limit": scales[rule].limit, "gain": scales[rule].gain}
        for rule, values in signals.items()
    ]
    whole = maps.side_by_side(list(pictures.values()))
    show.downloads("backprop", picture=whole, numbers=signals, table=table, code=code)

st.divider()
attributions.section(here, goal, view)
second_opinion.table()
