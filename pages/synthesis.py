"""Gradient ascent and DeepDream: pictures made by the network itself, which grow while one watches."""

from pages.ui import nav

nav.ensure()

import numpy as np
import streamlit as st
from PIL import Image

import sp_core as sp
from pages.ui import live, pick, show
from pages.ui.sidebar import selection
from sp_core.datasets.textures import Textures
from sp_core.figures.synthesis import growth, sheet
from sp_core.images import to_picture
from sp_core.synthesis import default_layer

here = selection()
net = here.net
show.title(
    "Gradient ascent and DeepDream",
    "Images that the network makes: noise turned into what a unit likes most, or your picture into what a layer sees.",
)
LAYERS = {layer.name: layer for layer in net.layers}
MAPS = [name for name, layer in LAYERS.items() if layer.is_map]
SMALL = max(net.input_size[1:]) <= 96  # a first picture takes about a second: no need to ask for it
PARAMETRISATIONS = {"fourier": "Fourier", "pixel": "pixels (naive)", "maco": "magnitude-constrained"}


def choose(label: str, options: list, key: str, **more):
    """A pick list in the address bar; a choice kept from another network is dropped."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)
    return st.selectbox(label, options, key=key, bind="query-params", **more)


def layer_line(name: str) -> str:
    """How a layer reads in a pick list."""
    return f"{name} · {LAYERS[name].kind} · {'×'.join(map(str, LAYERS[name].output_shape))}"


def choose_goals() -> list[str]:
    """What the pictures are to drive, in the written form of units and classes."""
    kinds = ["channel", "neuron", *(["class"] if net.class_count else [])]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = choose("Drive", kinds, "drive", width=140)
        if kind == "class":
            top = net.class_count - 1
            first = choose("Class", list(range(top + 1)), "class", format_func=net.class_name, width=280)
        else:
            names = MAPS if kind == "neuron" else list(LAYERS)
            start = names.index(default_layer(net)) if MAPS else 0
            layer = choose("Layer", names, "layer", index=start, format_func=layer_line, width=320)
            top = LAYERS[layer].channels - 1
            first = pick.number("Channel", key="channel", top=top)
        if kind == "neuron":
            _, h, w = LAYERS[layer].output_shape
            y, x = (
                pick.number(n, key=k, top=s - 1, default=s // 2) for n, k, s in (("Row", "y", h), ("Column", "x", w))
            )
            return [f"{layer}:{first}@{y},{x}"]
        count = st.slider("How many, from this one on", 1, 16, 4, key="count", bind="query-params", width=220)
    numbers = range(first, min(first + count, top + 1))
    return [str(number) if kind == "class" else f"{layer}:{number}" for number in numbers]


def choose_settings() -> tuple[sp.AscentSettings, str]:
    """How the pictures are made, and whose colours they have."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sign = choose("Sign", ["+", "−"], "sign", width=90, help="− looks for what the unit likes least.")
        made = choose("Parametrisation", list(PARAMETRISATIONS), "by", format_func=PARAMETRISATIONS.get, width=200)
        steps = st.select_slider("Steps", [32, 64, 128, 256, 512], 64, key="steps", bind="query-params", width=200)
        seed = st.number_input("Seed", 0, 99_999, key="seed", bind="query-params", width=120)
    with st.expander("More", icon=":material/tune:"), st.container(horizontal=True, vertical_alignment="bottom"):
        size = st.number_input(
            "Size", 0, 512, 0, key="size", bind="query-params", width=120, help="Shorter side; 0: what the unit sees."
        )
        wobble = st.slider("Shift, zoom, turn", 0.0, 4.0, 1.0, 0.25, key="wobble", bind="query-params", width=200)
        colours = choose("Colours of", ["textures", "ImageNet"], "colours", index=0 if SMALL else 1, width=160)
        copies = st.slider("Pictures of each", 1, 4, 1, key="copies", bind="query-params", width=160)
        apart = st.slider("Driven apart", 0.0, 4.0, 0.0, 0.5, key="apart", bind="query-params", width=160)
    options = {"size": size or None, "transforms": wobble, "copies": copies, "diversity": apart}
    return sp.AscentSettings(steps, None, made, 1 if sign == "+" else -1, seed, **options), colours


def ascent() -> None:
    """The first view: pictures from noise."""
    goals = choose_goals()
    settings, colours = choose_settings()
    examples = (
        Textures(256, size=min(net.input_size[1:])).batch(0, 256, network=net)[0] if colours == "textures" else None
    )
    last, _ = live.run(
        lambda: sp.ascend(net, goals, settings, examples=examples),
        key="ascent",
        settings=(net.fingerprint, tuple(goals), settings, colours),
        total=settings.steps,
        draw=lambda step: sheet(step.images).image,
        text=lambda step: f"step {step.step} of {step.steps}, activation {float(step.activation.mean()):.3g}",
        alt="The pictures so far",
        start=SMALL,
        width=720,
    )
    if last is None:
        st.info("A step of this network takes a moment; press Run and watch the picture grow.")
        return
    for message in filter(None, last.messages):
        st.warning(message)
    show_ascent(last, settings)
    show.provenance(here, units=", ".join(goals), steps=last.step, seed=settings.seed, colours=colours)
    download_ascent(last, goals, settings)


def show_ascent(last: sp.synthesis.AscentStep, settings: sp.AscentSettings) -> None:
    """The pictures, what they reached, and how."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        sprite = sheet(last.images)
        alt = f"{len(last.names)} pictures that drive {', '.join(last.names)} of {net.name}"
        index = pick.sprite(sprite, key="shown", label="Picture", alt=alt, labels=list(last.names))
    with right:
        st.markdown(f"**{last.names[index]}**, {sprite.tile[1]}×{sprite.tile[0]} pixels")
        side = 448 // sprite.tile[1] * sprite.tile[1] or sprite.tile[1]
        show.picture(sprite.cut(index), alt=f"What drives {last.names[index]}", width=min(side, 448))
        reached, strongest = st.columns(2)
        reached.metric("Activation reached", f"{float(last.activation[index]):.4g}")
        if last.peak is not None:
            word = "At its strongest position" if settings.sign > 0 else "At its weakest position"
            strongest.metric(word, f"{float(last.peak[index]):.4g}")
    # Beside the best real patch: its place is here.
    values = np.array([[float(value) for value in row] for row in last.history])
    show.figure(growth(values, last.names), alt="Activation of each picture against the step", height=280)
    if not last.last:
        st.caption("Stopped before the end: activations are those of the shifted, zoomed and turned pictures.")


def download_ascent(last: sp.synthesis.AscentStep, goals: list[str], settings: sp.AscentSettings) -> None:
    """The sheet, the pictures as numbers, and the Python that makes them again."""
    code = f"import sp_core as sp\n\nnet = sp.load({here.source!r})\nsettings = sp.{settings!r}\n"
    code += f"*_, last = sp.ascend(net, {goals!r}, settings)\nlast.images  # [n, c, h, w] in [0, 1]\n"
    numbers = {"images": last.images.cpu().numpy(), "activation": last.activation.cpu().numpy()}
    name = f"ascent-{net.name}-{goals[0].replace(':', '-')}-seed{settings.seed}"
    show.downloads(name, picture=sheet(last.images).image, numbers=numbers, code=code)


def choose_dream() -> tuple[sp.DreamSettings, Image.Image | None, str]:
    """What is strengthened, how, and the guide image if there is one."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        start = MAPS.index(default_layer(net))
        layer = choose("Layer", MAPS, "dream", index=start, format_func=layer_line, width=320)
        octaves = st.number_input(
            "Octaves", 0, 8, 0, key="octaves", bind="query-params", width=120, help="0: what fits."
        )
        steps = st.slider("Steps an octave", 1, 40, 10, key="each", bind="query-params", width=180)
        strength = st.slider("Strength", 0.5, 6.0, 1.5, 0.5, key="strength", bind="query-params", width=180)
        seed = st.number_input("Seed", 0, 99_999, key="dream-seed", bind="query-params", width=120)
        pixels = choose("Megapixels, at most", [0.05, 0.2, 0.5, 2.0], "pixels", index=0 if SMALL else 1, width=160)
        guide = choose("Guide image", ["none", "texture", "my own"], "guide", width=140)
    picture, name = None, ""
    if guide == "texture":
        number = pick.number("Texture number of the guide", key="guide-texture", top=9999, default=7)
        picture, name = Textures(number + 1, size=224).picture(number), f"texture {number}"
    elif guide == "my own":
        file = st.file_uploader("Guide image", key="guide-file")
        picture, name = (sp.open_image(file.getvalue()), file.file_id) if file else (None, "")
    options = {"strength": strength, "seed": seed, "max_pixels": round(pixels * 1e6)}
    return sp.DreamSettings(layer, octaves or None, 1.4, steps, **options), picture, name


def dreaming() -> None:
    """The second view: DeepDream on the current image."""
    settings, guide, name = choose_dream()
    last, finished = live.run(
        lambda: sp.dream(net, here.image, settings, guide=guide),
        key="dream",
        settings=(*here.key, settings, name),
        total=next_total(settings),
        draw=lambda step: to_picture(step.image),
        text=lambda step: f"octave {step.octave} of {step.octaves}, step {step.step} of {step.steps}",
        alt="The dream so far",
        label="Dream",
        width="60%",
    )
    before, after = st.columns(2, gap="large")
    with before:
        show.picture(here.image, alt=f"The picture before: {here.image_name}", width="100%", caption="Before")
        if guide is not None:
            show.picture(guide, alt=f"The guide image, {name}", width=224, caption="Guide")
    if last is None:
        return
    with after:
        state = "After" if finished else f"Stopped in octave {last.octave} of {last.octaves}"
        show.picture(
            to_picture(last.image), alt=f"{here.image_name} after dreaming of {last.name}", width="100%", caption=state
        )
    if last.note:
        st.info(last.note)
    show.provenance(here, layer=last.name, octaves=last.octaves, steps=last.step, seed=settings.seed)
    code = f"import sp_core as sp\n\nnet = sp.load({here.source!r})\nimage = sp.open_image('picture.png')\n"
    code += f"*_, last = sp.dream(net, image, sp.{settings!r})\nlast.image  # [c, h, w] in [0, 1]\n"
    show.downloads(f"dream-{net.name}", picture=to_picture(last.image), numbers={"image": last.image.cpu()}, code=code)


def next_total(settings: sp.DreamSettings) -> int:
    """How many steps there will be, for the bar."""
    sizes = sp.synthesis.octave_sizes((here.image.height, here.image.width), settings)
    return settings.steps * len(sizes)


VIEWS = {"ascent": "Gradient ascent", "dream": "DeepDream"}
view = st.segmented_control(
    "View", list(VIEWS), format_func=VIEWS.get, default="ascent", key="view", bind="query-params", required=True,
    label_visibility="collapsed",
)  # fmt: skip
if view == "ascent":
    ascent()
    show.explain(
        "What you are looking at",
        "Adam moves a picture, not the weights, so that a unit answers more strongly. Every step sees the picture shifted, "
        "zoomed and turned a little, so that what survives is what the unit responds to and not one lucky pattern. "
        "**Fourier** moves all frequencies as natural images have them; **pixels** shows why that is needed; "
        "**magnitude-constrained** keeps the spectrum of real pictures and moves the phases only. "
        "People predict a unit's answers better from its best real patches than from such pictures "
        "(92 % against 82 %, Borowski et al. 2021): look at both.",
        "Erhan et al. 2009; Simonyan et al. 2013; Olah, Mordvintsev, Schubert, Feature Visualization, Distill 2017; "
        "Fel et al. 2023 (MACO)",
    )
else:
    dreaming()
    show.explain(
        "What you are looking at",
        "The picture itself is the start, and what a layer already sees in it is strengthened: half the mean square of "
        "its activations, whose gradient is the activation itself. It begins on a small copy and goes on on larger ones "
        "(octaves), so that coarse shapes come before fine ones. With a guide image, each place is drawn towards the "
        "best matching feature of the guide.",
        "Mordvintsev, Olah, Tyka, Inceptionism, 2015; github.com/google/deepdream",
    )
