"""The architecture, named by a person who knows it: what fits, what is missing, and the use of it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.ui import cache, networks, show
from pages.ui.sidebar import Selection
from pages.ui.text import sentence, unmarked
from sp_core.checkpoints import by_hand as texts
from sp_core.checkpoints.diff import Diff, diff
from sp_core.errors import SpError

FIRST = 5  # of each kind are shown at once
MOST_COMPARED = 12  # architectures that are looked at for being close
LEAST = 0.25  # of an architecture's tensors must fit for it to be called close


def draw(here: Selection) -> None:
    """For a file: a choice of architectures, folded away until it is asked for."""
    if not networks.is_file(here.source):
        return
    said = networks.by_hand(here.source).get("as", "")
    box = st.expander("Name the architecture yourself", icon=":material/draw:", key="named", on_change="rerun")
    if box.open:
        with box:
            _choose(here, said)


def mend(here: Selection) -> None:
    """The same in the open, where what was named is what keeps the card from being drawn."""
    if "as" in networks.by_hand(here.source):
        with st.container(border=True):
            st.markdown("**The architecture that you named**")
            _choose(here, networks.by_hand(here.source)["as"])


def _choose(here: Selection, said: str) -> None:
    name, _, options = said.partition(" ") if "(" not in said else (said, "", "")
    keys = [f"as-{what}-{cache.digest(here.source.encode())}" for what in ("name", "options")]
    for key, value in zip(keys, (name or None, options), strict=True):
        st.session_state.setdefault(key, value)
    names = every_name()
    chosen = st.session_state[keys[0]]
    st.selectbox(
        "Architecture",
        names if chosen in {None, *names} else [chosen, *names],
        index=None,
        key=keys[0],
        placeholder="Choose, or type a part of its name",
        accept_new_options=True,
    )
    st.text_input(
        "Options",
        key=keys[1],
        placeholder="classes=10 small=true",
        help="classes, channels, small (the stem for small images), and what its constructor takes: width_mult=0.5.",
    )
    text = f"{st.session_state[keys[0]] or ''} {st.session_state[keys[1]]}".strip()
    if st.session_state[keys[0]]:
        _try(here, text, used=text == said)
    else:
        _offer(here)
    if said:
        forget = "Forget what I named"
        st.button(forget, icon=":material/undo:", on_click=networks.say, args=(here.source,), kwargs={"as_": None})


def _try(here: Selection, text: str, used: bool) -> None:
    """What fits of the architecture that is written, and the button that uses it."""
    try:
        found = _diff(here.source, text)
    except SpError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        return
    total = found.fits + len(found.missing) + len(found.reshaped)
    rows = _rows(found)
    if not rows:
        st.markdown(f"All {total} tensors fit.")
    else:
        st.markdown(
            f"**{found.fits} of {total} tensors fit**; {len(found.missing)} are missing, {len(found.unexpected)} have "
            f"no place, {len(found.reshaped)} have another shape. The first {FIRST} of each kind:"
        )
        shown: list[dict[str, Any]] = []
        for what in dict.fromkeys(row["what"] for row in rows):
            shown += [row for row in rows if row["what"] == what][:FIRST]
        st.dataframe(shown, hide_index=True)
        show.downloads(f"diff-{text.split(maxsplit=1)[0].replace(':', '-')}", table=rows)
    if used:
        st.success("Every page uses it.", icon=":material/check_circle:")
        return
    try:
        fits = networks.read_as(here.source, text)
    except SpError:
        st.caption("Too little fits for it to be used.")
        return
    st.button(
        f"Use it ({fits.confidence})",
        type="primary",
        icon=":material/check:",
        on_click=networks.say,
        args=(here.source,),
        kwargs={"as_": text},
    )


def _diff(source: str, text: str) -> Diff:
    how = networks.how_to_read(source)
    return cache.answer("diff", (how.key, text), lambda: diff(how.read(), texts.architecture(text)))


def _rows(found: Diff) -> list[dict[str, Any]]:
    def words(shape: tuple[int, ...]) -> str:
        return "×".join(map(str, shape)) or "a number"

    return [
        *({"what": "missing", "tensor": name, "in the file": "", "wanted": ""} for name in found.missing),
        *({"what": "unexpected", "tensor": name, "in the file": "", "wanted": ""} for name in found.unexpected),
        *(
            {"what": "another shape", "tensor": name, "in the file": words(have), "wanted": words(want)}
            for name, have, want in found.reshaped
        ),
    ]


def _offer(here: Selection) -> None:
    """The architectures that most of the tensors would fit, where there are any."""
    try:
        if here.found.has_graph:
            return
    except SpError:  # what was named before does not fit
        pass
    how = networks.how_to_read(here.source)
    with st.spinner("Looking for what is close …"):
        close = cache.answer("close", (how.key,), lambda: closest(how.read()))
    if close:
        st.caption("Closest, by the number of tensors that fit: " + "; ".join(unmarked(one.text) for one in close))


def closest(checkpoint: Any) -> list[Diff]:
    """The architectures whose marks the file bears, those that fit best first, at most three."""
    from sp_core.checkpoints.catalogue import candidates
    from sp_core.checkpoints.view import views

    names = dict.fromkeys(name for seen in views(checkpoint.tensors) for name in candidates(seen.shapes))
    found = [diff(checkpoint, name) for name in list(names)[:MOST_COMPARED]]
    near = [one for one in found if one.fits >= LEAST * (one.fits + len(one.missing) + len(one.reshaped))]
    return sorted(near, key=lambda one: (-one.fits, len(one.unexpected)))[:3]


@st.cache_data(show_spinner=False)
def every_name() -> list[str]:
    """All architectures that can be named."""
    from sp_core import zoo
    from sp_core.checkpoints.catalogue import torchvision_names
    from sp_core.checkpoints.timm_names import installed

    names = [f"torchvision:{name}" for name in torchvision_names()] + [f"zoo:{name}" for name in zoo.names()]
    if installed():
        import timm

        names += [f"timm:{name}" for name in timm.list_models()]
    return names
