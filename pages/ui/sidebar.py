"""The network and the image, chosen once in the sidebar and kept across pages and in the address bar."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import streamlit as st
from PIL import Image

from pages.ui import networks, uploads
from pages.ui.text import beginning, unmarked
from sp_core.errors import SpError

NETWORK, IMAGE, TEXTURE = "net", "image", "texture"
SCENES = {"scene:quilt": "A quilt of textures", "scene:zone-plate": "Zone plate", "scene:landscape": "Landscape"}
NETWORK_HELP = (
    "Bundled networks, your own files, untrained architectures, and torchvision's; "
    "you can also type torchvision:NAME@WEIGHTS."
)


@dataclass(frozen=True)
class Selection:
    """What the sidebar says: the network, the picture, and what the network sees of it.

    Attributes:
        source: the network's name in the address bar, such as ``"bundled:textures-alexnet"``.
        image_source: the picture's name in the address bar.
        image: the picture, RGB.
        image_name: for captions.
        image_key: names the picture's content, for cache keys.
    """

    source: str
    image_source: str
    image: Image.Image
    image_name: str
    image_key: str

    @cached_property
    def net(self) -> Any:
        """The network (:class:`sp_core.Network`), fed as was said by hand; raises SpError where it cannot be loaded."""
        return networks.load(self.source)

    @cached_property
    def found(self) -> Any:
        """The network as its file says, before anything was said by hand of how it is fed."""
        return networks.found(self.source)

    @cached_property
    def seen(self) -> Any:
        """What the network sees of the picture: float32 ``[1, c, h, w]`` in [0, 1]."""
        return self.net.view(self.image)[None]

    @cached_property
    def crop(self) -> Image.Image:
        """What the network sees of the picture, as a picture: grey for one channel, the first three of more."""
        from sp_core.images import to_picture

        return to_picture(self.seen[0])

    @property
    def code(self) -> str:
        """The Python that loads this network, fed as here: ``sp.load("bundled:…")``."""
        return networks.code(self.source)

    @property
    def key(self) -> tuple[str, str]:
        """Identity of the network as it is fed, and content hash of the picture: for the key of a cached answer."""
        return self.net.identity, self.image_key


def draw() -> None:
    """Draw the sidebar's two pickers. Called by the frame, once a run, before the page."""
    with st.sidebar:
        uploads.note()
        linked_select("Network", networks.sources(), NETWORK, networks.label, NETWORK_HELP)
        networks.link(_source())
        _network_line()
        linked_select("Image", image_sources(), IMAGE, image_label)
        if st.session_state.get(IMAGE) == "texture":
            st.number_input("Texture number", 0, 999_999, key=TEXTURE, bind="query-params", step=1)
        _image_preview()
        with st.expander("Use your own", icon=":material/upload:", expanded=not uploads.table()):
            st.file_uploader(
                "Checkpoints",
                key=uploads.WIDGETS["network"],
                accept_multiple_files=True,
                on_change=_choose_upload,
                args=("network",),
            )
            st.caption(
                "State dicts in .safetensors, .pth, .pt …, the weights of TorchScript and ONNX; of a sharded one the "
                "index with its shards. Only tensors are read; code in a file never runs. At most "
                f"{st.get_option('server.maxUploadSize')} MB a file."
            )
            st.file_uploader("Picture", key=uploads.WIDGETS["image"], on_change=_choose_upload, args=("image",))


def _source() -> str:
    """The chosen network, as it stands in the address."""
    return str(st.session_state.get(NETWORK) or networks.sources()[0])


def _network_line() -> None:
    source = _source()
    try:
        net = networks.load(source)
        count = net.class_count
    except SpError as error:
        from pages.ui import nav

        st.error(beginning(str(error)), icon=":material/error:")  # the page says all of it
        if networks.by_hand(source):
            nav.page_link("card.py", "Change what was said of it")
        return
    size = "×".join(map(str, net.input_size))
    known = f"{count:,} classes · {size}" if net.has_graph else "only the weights are known"
    st.caption(f"{unmarked(net.architecture or net.name)} · {known} · `{net.fingerprint}`")
    if any(name in networks.by_hand(source) for name in networks.FEEDING):
        st.caption(":material/tune: Fed as you said on the identity card.")
    for warning in net.warnings:
        st.caption(f":material/warning: {beginning(warning)}", help=unmarked(warning))
    if missing := networks.missing_names(source):
        st.caption(f":material/warning: {unmarked(missing)}")


def linked_select(label: str, options: list[str], key: str, words: Any, help_text: str | None = None) -> None:
    """A picker whose value (not its label, which ``bind`` would write) is in the address bar."""
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, options[0])
    chosen = st.session_state[key]
    if chosen not in options:
        options = [*options, chosen]  # a name typed in, or a link to a file that is not here: said in its place
    st.selectbox(label, options, key=key, format_func=words, accept_new_options=True, help=help_text)
    chosen = st.session_state[key] or options[0]
    if chosen == options[0]:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != chosen:
        st.query_params[key] = chosen


def selection() -> Selection:
    """What is chosen; raises SpError where the address names something that is not here."""
    source = _source()
    image_source = str(st.session_state.get(IMAGE) or "texture")
    image, name, key = _image(image_source)
    return Selection(source, image_source, image, name, key)


# --- pictures -------------------------------------------------------------------------------------------------------


def image_sources() -> list[str]:
    """Every picture that can be chosen: a texture by number, bundled scenes, uploads."""
    own = [f"upload:{key}" for key, row in uploads.table().items() if row["what"] == "image"]
    return ["texture", *SCENES, *own]


def image_label(source: str) -> str:
    """How a picture's source reads in the picker."""
    kind, _, name = source.partition(":")
    if kind == "upload":
        row = uploads.table().get(name)
        return f"{row['name']} (yours)" if row else f"picture {name} (not uploaded here)"
    return {"texture": "A texture, by number", **SCENES}.get(source, source)


def _image(source: str) -> tuple[Image.Image, str, str]:
    kind, _, name = source.partition(":")
    if source == "texture":
        index = int(st.session_state.get(TEXTURE) or 0)
        return _texture(index), f"texture {index}", f"texture-{index}"
    if source in SCENES:
        return _scene(name), SCENES[source], source
    if kind == "upload" and name in uploads.table():
        row = uploads.table()[name]
        return _decode(name, uploads.content(name)).image, row["name"], name
    if kind == "upload":
        raise SpError(
            f"This link shows a picture with content hash {name} that is not uploaded in this session. "
            "Upload it in the sidebar under “Use your own” to see the same view."
        )
    raise SpError(f"'{source}' is not a picture; choose one in the sidebar or upload your own.")


@st.cache_data(max_entries=64, show_spinner=False)
def _texture(index: int) -> Image.Image:
    from sp_core.datasets.textures import Textures

    return Textures(count=index + 1, size=256).picture(index, size=256)


@st.cache_data(max_entries=8, show_spinner=False)
def _scene(name: str) -> Image.Image:
    from sp_core.datasets import scenes

    return scenes.picture(name)


@st.cache_resource(max_entries=8, show_spinner="Decoding the picture …")
def _decode(key: str, _data: bytes) -> Any:
    """The picture with notes (:class:`sp_core.images.Opened`); shared by all who upload the same, so never changed."""
    from sp_core.images import open_with_notes

    return open_with_notes(_data)


def _image_preview() -> None:
    from pages.ui import preview

    source = str(st.session_state.get(IMAGE) or "texture")
    try:
        image, name, key = _image(source)
    except SpError as error:
        st.error(unmarked(str(error)), icon=":material/error:")
        return
    notes = _decode(key, uploads.content(key)).notes if source.startswith("upload:") else ()
    try:
        net = networks.load(_source())
    except SpError:
        net = None  # said above, beside the network
    preview.draw(image, name, notes, net)


# --- uploads --------------------------------------------------------------------------------------------------------


def _choose_upload(what: str) -> None:
    """What has just been uploaded is what the person wants to see."""
    new = uploads.note()
    if what == "network" and new:
        st.session_state[NETWORK] = f"file:{new[-1]}"
    for key, row in uploads.table().items():
        if row["what"] == what == "image":
            st.session_state[IMAGE] = f"upload:{key}"
