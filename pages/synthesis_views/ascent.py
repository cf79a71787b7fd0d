"""Pictures from noise that drive a class, a channel or a neuron."""

from __future__ import annotations

import numpy as np
import streamlit as st

import sp_core as sp
from pages.patch_views import data
from pages.synthesis_views import real
from pages.synthesis_views.choice import choose_layer, forget_of_another, is_small
from pages.ui import live, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from sp_core.figures.synthesis import growth, sheet
from sp_core.synthesis.settings import PARAMETRISATIONS, PRECISIONS

REAL = "real images"
COLOURS = (
    "Pictures get the colours of what the network was trained on (and with maco its magnitudes at each frequency): "
    "those of real images, chosen under More (at first the textures of the bundled networks), ImageNet's published "
    "colours, or those of the image in the sidebar."
)
PRECISION = (
    "What the products of a step are computed in; auto is bfloat16 where the processor multiplies in it and the "
    "network gains by it: up to several times as fast, and it ends as high. What was reached is always measured in "
    "float32."
)
TEXT = (
    "Adam moves a picture, not the weights, so that a unit answers more strongly. Every step sees the picture "
    "shifted, zoomed and turned a little, so that what survives is what the unit responds to and not one lucky "
    "pattern. **fourier** moves all frequencies as natural images have them; **pixel** shows why that is needed; "
    "**maco** (magnitude-constrained) keeps the spectrum of real pictures and moves the phases only.\n\nPeople predict "
    "a unit's answers better from its best real patches than from such pictures (92 % against 82 %, Borowski et al., "
    "ICLR 2021): look at both."
)
SOURCE = (
    "Erhan et al. 2009; Simonyan et al. 2013; Olah, Mordvintsev and Schubert, Feature Visualization, Distill 2017; "
    "Fel et al. 2023 (MACO)"
)


def draw(here: Selection) -> None:
    """The choices, the pictures as they grow, and what they reached."""
    forget_of_another(here.net, "ascent", ("count", "colours"))
    goals = choose_goals(here.net)
    settings, colours, source = choose_settings(is_small(here.net))
    last, _ = live.run(
        lambda: sp.ascend(here.net, goals, settings, examples=examples(here, colours, source)),
        key="ascent",
        settings=(
            *(here.key if colours == "my image" else (here.net.identity,)),
            tuple(goals),
            settings,
            colours,
            source if colours == REAL else "",
        ),
        total=settings.steps,
        draw=lambda step: sheet(step.images, columns(len(step.names))).image,
        text=lambda step: f"step {step.step} of {step.steps}, activation {float(step.activation.mean()):.3g}",
        alt="The pictures so far",
        start=True,
        width=720,
    )
    if last is None:
        st.info("Stopped before the first step; press Run and watch the picture grow.")
    else:
        for message in filter(None, last.messages):
            st.warning(message)
        results(here, last, goals, settings, source)
        said = data.label(source).lower() if colours == REAL else colours
        made = {"steps": last.step, "seed": settings.seed, "steps_in": last.precision, "colours_of": said}
        show.provenance(here, units=", ".join(goals), **made)
        downloads(here, last, goals, settings, colours, source)
    show.explain("What you are looking at", TEXT, SOURCE)


def columns(count: int) -> int:
    """Pictures in a row."""
    return min(count, 4)


def examples(here: Selection, colours: str, source: str):
    """Images whose colours and magnitudes the pictures get, as the network is fed with them; None for ImageNet's."""
    if colours == "my image":
        return here.net.view(here.image)[None]
    return real.examples(here, source) if colours == REAL else None


def choose_goals(net: sp.Network) -> list[str]:
    """What the pictures are to drive, in the written form of units and classes."""
    maps = [layer.name for layer in net.layers if layer.is_map]
    kinds = ["channel", *(["neuron"] if maps else []), *(["class"] if net.class_count else [])]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = choose("Drive", kinds, "drive", width=140)
        if kind == "class":
            top = net.class_count - 1
            first = choose("Class", range(top + 1), "class", format_func=net.class_name, width=320)
        else:
            layer = choose_layer(net, maps if kind == "neuron" else [row.name for row in net.layers], "layer")
            shape = net.layer(layer).output_shape
            top = shape[0] - 1
            first = pick.number("Channel", key="channel", top=top)
        if kind == "neuron":
            y = pick.number("Row", key="y", top=shape[1] - 1, default=shape[1] // 2)
            x = pick.number("Column", key="x", top=shape[2] - 1, default=shape[2] // 2)
            return [f"{layer}:{first}@{y},{x}"]
        few = 4 if is_small(net) else 1  # a first picture in seconds, also of a large network
        count = st.slider("How many, from this one on", 1, 16, few, key="count", bind="query-params", width=220)
    numbers = range(first, min(first + count, top + 1))
    return [str(number) if kind == "class" else f"{layer}:{number}" for number in numbers]


def choose_settings(small: bool) -> tuple[sp.AscentSettings, str, str]:
    """How the pictures are made, whose colours they have, and which real images stand beside them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sign = choose("Make it", ["high", "low"], "sign", width=130, help="Low is what the unit likes least.")
        made = choose("Parametrisation", PARAMETRISATIONS, "by", width=160)
        steps = st.select_slider("Steps", [32, 64, 128, 256, 512], 64, key="steps", bind="query-params", width=200)
        seed = st.number_input("Seed", 0, 99_999, key="seed", bind="query-params", width=120)
        colours = choose(
            "Colours of",
            [REAL, "ImageNet", "my image"],
            "colours",
            index=0 if small else 1,
            width=160,
            help=COLOURS,
        )
    with st.expander("More", icon=":material/tune:"), st.container(horizontal=True, vertical_alignment="bottom"):
        words = "Shorter side in pixels; 0 is what the unit can see, with a margin."
        size = st.number_input("Size", 0, 512, 0, key="size", bind="query-params", width=120, help=words)
        wobble = st.slider("Shift, zoom, turn", 0.0, 4.0, 1.0, 0.25, key="wobble", bind="query-params", width=200)
        copies = st.slider("Pictures of each", 1, 4, 1, key="copies", bind="query-params", width=160)
        apart = st.slider("Driven apart", 0.0, 4.0, 0.0, 0.5, key="apart", bind="query-params", width=160)
        source = data.choose()
        precision = choose("Steps in", PRECISIONS, "precision", width=140, help=PRECISION)
    more = {"size": size or None, "transforms": wobble, "copies": copies, "diversity": apart, "precision": precision}
    return sp.AscentSettings(steps, None, made, 1 if sign == "high" else -1, seed, **more), colours, source


def results(
    here: Selection, last: sp.synthesis.AscentStep, goals: list[str], settings: sp.AscentSettings, source: str
) -> None:
    """The pictures, one of them enlarged, what they reached, and how; a single one is not shown twice."""
    sprite = sheet(last.images, columns(len(last.names)))
    left, right = st.columns([3, 2], gap="large")
    with left:
        alt = f"{len(last.names)} pictures that drive {', '.join(last.names)} of {here.net.name}"
        index = 0
        if len(last.names) > 1:
            index = pick.sprite(sprite, key="shown", label="Picture", alt=alt, labels=list(last.names), width=720)
        values = np.array([[float(value) for value in row] for row in last.history])
        show.figure(growth(values, last.names), alt="Activation of each picture against the step", height=280)
    with right:
        side = max(1, 384 // sprite.tile[1]) * sprite.tile[1]
        caption = f"{last.names[index]}, {sprite.tile[1]}×{sprite.tile[0]} pixels"
        show.picture(sprite.cut(index), alt=f"What drives {last.names[index]}", width=side, caption=caption)
        reached, strongest = st.columns(2)
        reached.metric(
            "Reached", f"{float(last.activation[index]):.4g}", help="The activation that was raised or lowered."
        )
        if last.peak is not None:
            word = "Strongest" if settings.sign > 0 else "Weakest"
            words = "The unit at the one position where it is so: what real patches are ranked by."
            strongest.metric(word, f"{float(last.peak[index]):.4g}", help=words)
        if not last.last:
            st.caption("Stopped before the end: measured on the shifted, zoomed and turned pictures.")
        if last.peak is not None:
            real.beside(here, source, goals[index // settings.copies], float(last.peak[index]), side=192)


def downloads(
    here: Selection,
    last: sp.synthesis.AscentStep,
    goals: list[str],
    settings: sp.AscentSettings,
    colours: str,
    source: str,
) -> None:
    """The sheet, the pictures as numbers, and the Python that makes them again."""
    code = f"import sp_core as sp\n\nnet = {here.code}\nsettings = sp.{settings!r}\n"
    if colours == REAL:
        code += real.code(here, source)
    elif colours == "my image":
        code += "examples = net.view(sp.open_image('picture.png'))[None]\n"
    given = "" if colours == "ImageNet" else ", examples=examples"
    code += f"*_, last = sp.ascend(net, {goals!r}, settings{given})\nlast.images  # [n, c, h, w] in [0, 1]\n"
    numbers = {"images": last.images.cpu().numpy(), "activation": last.activation.cpu().numpy()}
    name = f"ascent-{here.net.name}-{goals[0].replace(':', '-')}-seed{settings.seed}"
    show.downloads(name, picture=sheet(last.images, columns(len(last.names))).image, numbers=numbers, code=code)
