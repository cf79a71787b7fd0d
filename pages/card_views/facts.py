"""The card's facts as rows, and rows as a small table whose cells are shown as they are written."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

SURE = {
    "exact": "every tensor fits by name and shape",
    "likely": "most tensors fit; see the notes",
    "weights-only": "only the weights are known",
}
IN_MEMORY = " and became float32."  # how notes on types end
AS_SAID = " (as you said)"
AT_ONCE = 7  # lines of what training left before the rest is folded away
THOUSANDS = {name: st.column_config.NumberColumn(format="localized") for name in ("parameters", "MACs")}
STYLE = (
    "<style>table.sp-card { border-collapse: collapse; width: 100%; } "
    ".sp-card th { text-align: left; font-weight: 600; white-space: nowrap; padding-right: 1.2rem; "
    "vertical-align: top; } "
    ".sp-card td, .sp-card th { padding-top: .3rem; padding-bottom: .3rem; "
    "border-bottom: 1px solid rgba(128, 128, 128, .25); } "
    ".sp-card td { overflow-wrap: anywhere; }</style>"
)


def rows(card: Mapping[str, Any], by_hand: Iterable[str] = ()) -> list[tuple[str, str]]:
    """What the card says of the network as a whole, in words; ``by_hand`` is what of it a person said."""
    held = [note for note in card["warnings"] if note.endswith(IN_MEMORY)]
    numbers = f"{card['dtype']} in memory, {card['bytes'] / 1e6:,.1f} MB"
    if held:
        numbers += f"; in the file {'; '.join(note.removesuffix(IN_MEMORY) for note in held)}"
    lines = [
        ("Architecture", (card["architecture"] or "unknown") + AS_SAID * ("architecture" in by_hand)),
        ("How sure", f"{card['confidence']}: {SURE.get(card['confidence'], '')}"),
        ("From", card["source"]),
        ("Fingerprint", card["fingerprint"]),
        ("Numbers", numbers),
    ]
    if card["confidence"] == "weights-only":
        return lines
    size, said = card["input"], {"size": "", "normalisation": ""}
    said |= dict.fromkeys(card["guesses"], " (guessed, see the notes)")
    said |= dict.fromkeys(by_hand, AS_SAID)
    if size["mean"] is None and size["std"] is None:
        normalisation = "none: values in [0, 1] are fed as they are"
    else:
        normalisation = f"(x − {_numbers(size['mean'], 0)}) / {_numbers(size['std'], 1)}"
    channels = f"{size['channels']} channel{'s' * (size['channels'] != 1)}"
    return [
        *lines,
        ("Input", f"{channels}, {size['height']} × {size['width']} pixels{said['size']}"),
        ("Normalisation", normalisation + said["normalisation"]),
    ]


def _numbers(values: Sequence[float] | None, default: float) -> str:
    some = values or [default]
    return ", ".join(f"{value:g}" for value in some[:4]) + (", …" if len(some) > 4 else "")


def training(record: Mapping[str, Any]) -> None:
    """What training left beside the weights; facts that are tables themselves are folded away."""
    if not record:
        st.caption("Nothing beside the weights is known: no epoch, no accuracy, no settings.")
        return
    flat = [(_title(key), _word(value)) for key, value in record.items() if not isinstance(value, Mapping)]
    if flat:
        table(flat[:AT_ONCE])
    nested = [(_title(key), value) for key, value in record.items() if isinstance(value, Mapping)]
    if nested or len(flat) > AT_ONCE:
        with st.expander("All that was noted", icon=":material/list:"):
            lines = [(key, ", ".join(f"{_title(name)} {_word(some)}" for name, some in v.items())) for key, v in nested]
            table(flat[AT_ONCE:] + lines)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _word(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def table(lines: Sequence[tuple[str, str]]) -> None:
    """Names and values side by side. They may come from a stranger's file, so no markup in them is followed."""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in lines
    )
    st.html(f'{STYLE}<table class="sp-card">{body}</table>')


def layers(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a layer, flat, for a table and for CSV. Numbers that cannot be had are None."""
    if card["confidence"] == "weights-only":
        return [
            {
                "layer": layer["name"] or "(outside any layer)",
                "kind": layer["kind"],
                "weight": "×".join(map(str, layer["weight"] or ())) or None,
                "parameters": layer["parameters"],
            }
            for layer in card["layers"]
        ]
    return [
        {
            "layer": layer["name"],
            "kind": layer["kind"],
            "output": "×".join(map(str, layer["output"] or ())) or None,
            "parameters": layer["parameters"],
            "MACs": layer["macs"],
            "receptive field": _extent(layer["receptive_field"]["size"]),
            "stride": _extent(layer["receptive_field"]["stride"]),
            "status": layer["receptive_field"]["status"],
        }
        for layer in card["layers"]
    ]


def _extent(value: Any) -> str | None:
    if isinstance(value, list):
        return "×".join(map(str, value))
    return None if value is None else str(value)


def metrics(card: Mapping[str, Any]) -> None:
    """The numbers one asks for first; those that a network without a graph does not have are left out."""
    graph = card["confidence"] != "weights-only"
    with st.container(horizontal=True):
        st.metric("Parameters", f"{card['parameters']:,}")
        if graph:
            st.metric("Multiply-accumulates", "unknown" if card["macs"] is None else f"{card['macs'] / 1e6:,.1f} M")
        st.metric("Size", f"{card['bytes'] / 1e6:,.1f} MB")
        st.metric("Layers with weights", sum(bool(layer["weight"]) for layer in card["layers"]))
        if graph:
            st.metric("Classes", f"{card['classes']:,}" if card["classes"] else "none")
        else:
            st.metric("Tensors", f"{card['tensors']:,}")
