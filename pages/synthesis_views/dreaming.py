"""DeepDream on the current image."""

from __future__ import annotations

import streamlit as st
from PIL import Image

import sp_core as sp
from pages.synthesis_views.choice import choose_layer, forget_of_another, is_small
from pages.ui import cache, live, pick, show
from pages.ui.pick import choose
from pages.ui.sidebar import Selection
from sp_core.datasets.textures import Textures
from sp_core.images import to_picture

TEXT = (
    "The picture itself is the start, and what a layer already sees in it is strengthened: half the mean square of its "
    "activations, whose gradient is the activation itself. It begins on a small copy and goes on on larger ones "
    "(octaves), so that coarse shapes come before fine ones. With a guide image, each place is drawn towards the best "
    "matching feature of the guide."
)
SOURCE = "Mordvintsev, Olah and Tyka, Inceptionism, 2015; github.com/google/deepdream"


def draw(here: Selection) -> None:
    """The choices, the dream as it grows, and the picture before and after."""
    maps = [layer.name for layer in here.net.layers if layer.is_map]
    if not maps:
        st.info(f"{here.net.name} has no layer with maps, so there is nothing to dream of.")
        return
    forget_of_another(here.net, "dreaming", ("pixels",))
    settings = choose_settings(here.net, maps)
    guide, guide_key = choose_guide()
    last, finished = live.run(
        lambda: sp.dream(here.net, here.image, settings, guide=guide),
        key="dream",
        settings=(*here.key, settings, guide_key),
        total=settings.steps * len(sp.synthesis.octave_sizes((here.image.height, here.image.width), settings)),
        draw=lambda step: to_picture(step.image),
        text=lambda step: f"octave {step.octave} of {step.octaves}, step {step.step} of {step.steps}",
        alt="The dream so far",
        label="Dream",
        width="50%",
    )
    before, after = st.columns(2, gap="large")
    with before:
        show.picture(here.image, alt=f"Before: {here.image_name}", width="100%", caption=f"Before: {here.image_name}")
        if guide is not None:
            show.picture(guide, alt="The guide image", width=224, caption="Guide")
    if last is not None:
        with after:
            result(here, last, settings, finished)
    show.explain("What you are looking at", TEXT, SOURCE)


def choose_settings(net: sp.Network, maps: list[str]) -> sp.DreamSettings:
    """What is strengthened, and how."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = choose_layer(net, maps, "dream")
        octaves = st.number_input("Octaves (0: what fits)", 0, 8, 0, key="octaves", bind="query-params", width=180)
        steps = st.slider("Steps an octave", 1, 40, 10, key="each", bind="query-params", width=180)
        strength = st.slider("Strength", 0.5, 6.0, 1.5, 0.5, key="strength", bind="query-params", width=180)
        seed = st.number_input("Seed", 0, 99_999, key="dreamseed", bind="query-params", width=120)
        first = 0 if is_small(net) else 1
        pixels = choose("Megapixels, at most", [0.1, 0.3, 1.0, 2.0], "pixels", index=first, width=180)
    more = {"strength": strength, "seed": seed, "max_pixels": round(pixels * 1e6)}
    return sp.DreamSettings(layer, octaves or None, 1.4, steps, **more)


def choose_guide() -> tuple[Image.Image | None, str]:
    """A picture whose features are to appear, if wanted, and a name of its content."""
    guide = choose("Guide image", ["none", "texture", "my own"], "guide", width=160)
    if guide == "texture":
        number = pick.number("Texture number of the guide", key="guidetexture", top=9999, default=7)
        return Textures(number + 1, size=224).picture(number), f"texture {number}"
    if guide == "my own":
        file = st.file_uploader("Guide image", key="guide-file")
        if file is not None:
            return sp.open_image(file.getvalue()), cache.digest(file.getvalue())
    return None, ""


def result(here: Selection, last: sp.synthesis.DreamStep, settings: sp.DreamSettings, finished: bool) -> None:
    """The picture after, what was said about it, and the downloads."""
    picture = to_picture(last.image)
    caption = f"After: {last.name}" if finished else f"Stopped in octave {last.octave} of {last.octaves}: {last.name}"
    show.picture(picture, alt=f"{here.image_name} after dreaming of {last.name}", width="100%", caption=caption)
    if last.note:
        st.info(last.note)
    show.provenance(
        here, layer=last.name, octaves=last.octaves, steps=last.step, seed=settings.seed, steps_in=last.precision
    )
    code = f"import sp_core as sp\n\nnet = {here.code}\nimage = sp.open_image('picture.png')\n"
    code += f"*_, last = sp.dream(net, image, sp.{settings!r})\nlast.image  # [c, h, w] in [0, 1]\n"
    numbers = {"image": last.image.cpu().numpy()}
    show.downloads(f"dream-{here.net.name}-seed{settings.seed}", picture=picture, numbers=numbers, code=code)
