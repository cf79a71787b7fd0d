"""The network and the image, chosen once in the sidebar and kept across pages and in the address bar."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from pages.ui import cache
from sp_core.errors import SpError

NETWORK, IMAGE, TEXTURE = "net", "image", "texture"
SCENES = {"scene:quilt": "A quilt of textures", "scene:zone-plate": "Zone plate", "scene:landscape": "Landscape"}
NETWORK_HELP = (
    "Bundled networks, your own files, untrained architectures, and torchvision's; "
    "you can also type torchvision:NAME@WEIGHTS."
)
CHECKPOINT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th", ".tar", ".pkl", ".t7", ".model")


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
        """The network (:class:`sp_core.Network`); raises SpError where it cannot be loaded."""
        return load_network(self.source)

    @cached_property
    def seen(self) -> Any:
        """What the network sees of the picture: float32 ``[1, c, h, w]`` in [0, 1]."""
        return self.net.view(self.image)[None]

    @cached_property
    def crop(self) -> Image.Image:
        """What the network sees of the picture, as a picture."""
        return self.net.crop(self.image)

    @property
    def loads_as(self) -> str:
        """What ``sp.load`` takes to load this network elsewhere: the source, or the file's own name."""
        kind, _, name = self.source.partition(":")
        if kind == "file":
            return _uploads().get(name, {}).get("name", name)
        return f"./{name}" if kind == "path" else self.source

    @property
    def key(self) -> tuple[str, str]:
        """Fingerprint of the weights and content hash of the picture: for the key of a cached answer."""
        return self.net.fingerprint, self.image_key


def draw() -> None:
    """Draw the sidebar's two pickers. Called by the frame, once a run, before the page."""
    with st.sidebar:
        _note_uploads()
        _linked_select("Network", network_sources(), NETWORK, network_label, NETWORK_HELP)
        _network_line()
        _linked_select("Image", image_sources(), IMAGE, image_label)
        if st.session_state.get(IMAGE) == "texture":
            st.number_input("Texture number", 0, 999_999, key=TEXTURE, bind="query-params", step=1)
        _image_preview()
        with st.expander("Use your own", icon=":material/upload:", expanded=not _uploads()):
            st.file_uploader("Checkpoint", key="upload-network", on_change=_choose_upload, args=("network",))
            st.caption("State dict in .safetensors, .pth, .pt … Only tensors are read; code in a file never runs.")
            st.file_uploader("Picture", key="upload-image", on_change=_choose_upload, args=("image",))


def _linked_select(label: str, options: list[str], key: str, words: Any, help_text: str | None = None) -> None:
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
    source = str(st.session_state.get(NETWORK) or network_sources()[0])
    image_source = str(st.session_state.get(IMAGE) or "texture")
    image, name, key = _image(image_source)
    return Selection(source, image_source, image, name, key)


# --- networks -------------------------------------------------------------------------------------------------------


def network_sources() -> list[str]:
    """Every network that can be chosen: bundled, uploaded, the owner's folder, untrained, torchvision."""
    from sp_core import checkpoints, zoo

    return [
        *(f"bundled:{name}" for name in checkpoints.bundled_names()),
        *(f"file:{key}" for key, row in _uploads().items() if row["what"] == "network"),
        *(f"path:{name}" for name in _owner_files()),
        *(f"zoo:{name}" for name in zoo.names()),
        *(f"torchvision:{name}" for name in _torchvision_names()),
    ]


def _torchvision_names() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def network_label(source: str) -> str:
    """How a source reads in the picker."""
    kind, _, name = source.partition(":")
    if kind == "file":
        row = _uploads().get(name)
        return f"{row['name']} (yours)" if row else f"file {name} (not uploaded here)"
    return {"bundled": f"{name}", "zoo": f"{name} (untrained)", "path": name}.get(kind, source)


def load_network(source: str) -> Any:
    """The network that ``source`` names; raises SpError with the next step where there is none."""
    from sp_core import checkpoints

    kind, _, name = source.partition(":")
    if kind == "file":
        row = _uploads().get(name)
        if row is None:
            raise SpError(
                f"This link shows a checkpoint with content hash {name} that is not uploaded in this session. "
                "Upload the file in the sidebar under “Use your own” to see the same view."
            )
        data = st.session_state["upload-network"].getvalue()
        # The name is in the key: a network carries its file's name, which is no one else's business.
        return cache.network(f"{source}|{row['name']}", lambda: checkpoints.load_bytes(data, row["name"]))
    if kind == "path":
        folder = _owner_folder()
        if folder is None or name not in _owner_files():
            raise SpError(f"'{name}' is not in the folder that this server's owner shares; choose another network.")
        path = folder / name
        stat = path.stat()
        return cache.network(f"{source}|{stat.st_mtime_ns}|{stat.st_size}", lambda: checkpoints.load(str(path)))
    if kind not in {"bundled", "zoo", "torchvision", "timm"}:
        raise SpError(f"'{source}' is not a network; write bundled:NAME, torchvision:NAME, zoo:NAME, or upload a file.")
    return cache.network(source, lambda: checkpoints.load(source))


def _owner_folder() -> Path | None:
    folder = os.environ.get("SP_FOLDER")
    return Path(folder) if folder and Path(folder).is_dir() else None


def _owner_files() -> list[str]:
    """Checkpoints in the one folder that the server's owner allows (environment variable ``SP_FOLDER``)."""
    folder = _owner_folder()
    if folder is None:
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in CHECKPOINT_ENDINGS)


def _network_line() -> None:
    try:
        net = load_network(str(st.session_state.get(NETWORK) or network_sources()[0]))
    except SpError as error:
        st.error(str(error), icon=":material/error:")
        return
    size = "×".join(map(str, net.input_size))
    st.caption(f"{net.architecture or net.name} · {net.class_count} classes · {size} · `{net.fingerprint}`")
    for warning in net.warnings:
        st.caption(f":material/warning: {warning}")


# --- pictures -------------------------------------------------------------------------------------------------------


def image_sources() -> list[str]:
    """Every picture that can be chosen: a texture by number, bundled scenes, uploads."""
    uploads = [f"upload:{key}" for key, row in _uploads().items() if row["what"] == "image"]
    return ["texture", *SCENES, *uploads]


def image_label(source: str) -> str:
    """How a picture's source reads in the picker."""
    kind, _, name = source.partition(":")
    if kind == "upload":
        row = _uploads().get(name)
        return f"{row['name']} (yours)" if row else f"picture {name} (not uploaded here)"
    return {"texture": "A texture, by number", **SCENES}.get(source, source)


def _image(source: str) -> tuple[Image.Image, str, str]:
    kind, _, name = source.partition(":")
    if source == "texture":
        index = int(st.session_state.get(TEXTURE) or 0)
        return _texture(index), f"texture {index}", f"texture-{index}"
    if source in SCENES:
        return _scene(name), SCENES[source], source
    if kind == "upload" and name in _uploads():
        row = _uploads()[name]
        return _decode(name, st.session_state["upload-image"].getvalue()), row["name"], name
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


@st.cache_data(max_entries=32, show_spinner=False)
def _decode(key: str, _data: bytes) -> Image.Image:
    from sp_core.images import open_image

    return open_image(_data)


def _image_preview() -> None:
    from pages.ui import show

    try:
        image, name, _ = _image(str(st.session_state.get(IMAGE) or "texture"))
    except SpError as error:
        st.error(str(error), icon=":material/error:")
        return
    show.picture(image, alt=f"The chosen picture: {name}", width=180)


# --- uploads --------------------------------------------------------------------------------------------------------


def _uploads() -> dict[str, dict[str, str]]:
    """Content hash to ``{"what", "name"}`` of this session's uploads; the bytes stay in the upload widgets."""
    return st.session_state.setdefault("uploads", {})


def _note_uploads() -> None:
    """Keep the table of uploads in step with the two upload widgets, hashing each file once."""
    known = st.session_state.setdefault("upload-ids", {})
    present = {}
    for what in ("network", "image"):
        file = st.session_state.get(f"upload-{what}")
        if file is None:
            continue
        if file.file_id not in known:
            known[file.file_id] = cache.digest(file.getvalue())
        present[known[file.file_id]] = {"what": what, "name": file.name}
    st.session_state["uploads"] = present


def _choose_upload(what: str) -> None:
    """A file that has just been uploaded is what the person wants to see."""
    _note_uploads()
    for key, row in _uploads().items():
        if row["what"] == what:
            if what == "network":
                st.session_state[NETWORK] = f"file:{key}"
            else:
                st.session_state[IMAGE] = f"upload:{key}"
