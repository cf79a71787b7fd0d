"""The card's facts as rows, and rows as a small table whose cells are shown as they are written."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

SURE = {
    "exact": "every tensor fits by name and shape",
    "likely": "most tensors fit; see the notes",
    "weights-only": "only the weights are known",
}
AT_ONCE = 7  # lines of what training left before the rest is folded away
THOUSANDS = {name: st.column_config.NumberColumn(format="localized") for name in ("parameters", "MACs")}
STYLE = (
    "<style>table.sp-card { border-collapse: collapse; width: 100%; } "
    ".sp-card th { text-align: left; font-weight: 600; white-space: nowrap; padding-right: 1.2rem; "
    "vertical-align: top; } "
    ".sp-card td, .sp-card th { padding-top: .3rem; padding-bottom: .3rem; "
    "border-bottom: 1px solid rgba(128, 128, 128, .25); } "
    ".sp-card td { overflow-wrap: break-word; }</style>"
)


def rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the card says of the network as a whole, in words."""
    size = card["input"]
    guessed = " (guessed, see the notes)" if any("guessed" in warning for warning in card["warnings"]) else ""
    if size["mean"] is None and size["std"] is None:
        normalisation = "none: values in [0, 1] are fed as they are"
    else:
        normalisation = f"(x − {_numbers(size['mean'], 0)}) / {_numbers(size['std'], 1)}{guessed}"
    return [
        ("Architecture", card["architecture"] or "unknown"),
        ("How sure", f"{card['confidence']}: {SURE.get(card['confidence'], '')}"),
        ("From", card["source"]),
        ("Fingerprint", card["fingerprint"]),
        ("Numbers", f"{card['dtype']}, {card['bytes'] / 1e6:,.1f} MB in memory"),
        ("Input", f"{size['channels']} channels, {size['height']} × {size['width']} pixels{guessed}"),
        ("Normalisation", normalisation),
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


def unmarked(text: str) -> str:
    """Text from a file (names of layers, of the file) for Streamlit: its markdown is shown, not followed."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>$~:!#" else letter for letter in text)


def layers(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a layer, flat, for a table and for CSV. Numbers that cannot be had are None."""
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
