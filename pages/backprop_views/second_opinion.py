"""What captum makes of the network that is open, from the recorded comparison on torchvision's classifiers."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

RECORD = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "attributions.json"
COMPLETE = 0.01  # of DeepLift: what the contributions may miss
CLOSE = 1e-3  # of LRP: how far captum's values may be from ours, relative to the largest


@cache
def record() -> dict[str, Any]:
    """The recorded comparison (``benchmarks/attributions.py``); empty where it was not shipped."""
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def of(architecture: str | None) -> dict[str, Any] | None:
    """The row of ``"torchvision:resnet18"``, or None."""
    library, _, name = (architecture or "").partition(":")
    rows: dict[str, dict[str, Any]] = record().get("details", {}).get("networks", {})
    return rows.get(name) if library == "torchvision" else None


def on_guided(architecture: str | None) -> str | None:
    """One sentence on captum's guided backprop, where it was compared."""
    if (row := of(architecture)) is None:
        return None
    verdict = {
        "guided": "is the same as ours",
        "plain gradient": "is the **plain gradient**, without a warning: it acts on `nn.ReLU` modules only, and here "
        "the rectifiers are functions or of another kind",
        "partly guided": "acts on **some of the rectifiers only**, without a warning: those that are no `nn.ReLU` "
        "modules are passed by",
        "plain gradient, and there is nothing to guide": "is the **plain gradient**, without a warning",
    }[row["captum guided"]]
    return f"captum {record()['versions']['captum']}'s guided backprop on this architecture {verdict}."


def on_deep_lift(architecture: str | None) -> str:
    """Whose DeepLift is shown, and what captum's does here, where it was compared."""
    ours = "DeepLift is this project's own (Rescale rule; products share evenly, max-pools by winner)."
    if (row := of(architecture)) is None:
        return ours
    version = record()["versions"]["captum"]
    parts = list(row["deep lift"].values())
    if any("captum raises" in part for part in parts):
        return f"{ours} captum {version}'s raises an error on this architecture."
    gap = max((part["captum's gap"] for part in parts if "captum's gap" in part), default=None)
    if gap is None:
        return ours
    if gap > COMPLETE:
        missed = f"misses {gap:.0%} of" if gap < 2 else f"is off by {gap:,.0f} times"
        return f"{ours} captum {version}'s {missed} the difference on this architecture, without a warning."
    return f"{ours} captum {version}'s is complete on this architecture too."


def on_lrp(architecture: str | None) -> str:
    """Whose LRP is shown, and what captum's does here, where it was compared."""
    ours = (
        "LRP is this project's own (epsilon rule, epsilon to 0): on rectifiers, max-pools and linear layers it is the "
        "gradient times the normalised image."
    )
    row = (of(architecture) or {}).get("lrp")
    if row is None:
        return ours
    version = record()["versions"]["captum"]
    if "captum raises" in row:
        return f"{ours} captum {version}'s raises an error on this architecture."
    off = row.get("captum from ours")
    if off is None or not math.isfinite(off):
        return f"{ours} captum {version}'s is not finite on this architecture." if off is not None else ours
    if off > CLOSE:
        return f"{ours} captum {version}'s is off by {off:,.2g} times its largest value here, without a warning."
    return f"{ours} captum {version}'s is the same on this architecture."


def table() -> None:
    """The whole comparison, folded up."""
    found = record()
    if not found:
        return
    st.divider()
    with st.expander("A second opinion: what captum does, network by network", icon=":material/compare_arrows:"):
        st.markdown(
            "Each network untrained and calibrated, one image of noise. *Reference*: every activation replaced by a "
            "function with the rule written out. Differences are relative to the largest value; a DeepLift gap is what "
            "the contributions miss of target(image) - target(blurred image). Untrained EfficientNets reach logits of "
            "1e9 and more, where rounding can be more than that difference: their gaps say nothing of trained ones."
        )
        st.dataframe([_row(name, row) for name, row in sorted(found["details"]["networks"].items())], hide_index=True)
        versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("torch", "torchvision", "captum"))
        st.caption(f"Recorded with {versions}; `python -m benchmarks.attributions` makes it again.")


def _row(name: str, row: dict[str, Any]) -> dict[str, Any]:
    ours = max(row.get(f"{rule} in float64", row[rule]) or 0.0 for rule in ("gradient", "deconvnet", "guided"))
    lift = row["deep lift"]["blurred"]
    theirs = lift.get("captum's gap")
    relevance = row.get("lrp", {})
    return {
        "network": name,
        "rectifiers": row["rectifiers"],
        "ours from the reference": f"{ours:.0e}" if ours else "0",
        "captum from the reference": _short(row["captum guided from the reference"]),
        "captum from the plain gradient": _short(row["captum guided from the gradient"]),
        "captum's guided backprop is": row["captum guided"] if row["rectifiers"] else "nothing to guide",
        "our DeepLift gap": f"{lift['gap']:.0e}",
        "captum's DeepLift gap": "raises" if "captum raises" in lift else "" if theirs is None else _short(theirs),
        "LRP": "applies" if relevance.get("ours") == "applies" else "does not apply",
        "captum's LRP from ours": "raises"
        if "captum raises" in relevance
        else _short(relevance["captum from ours"])
        if "captum from ours" in relevance
        else "",
    }


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return "0" if value == 0 else f"{value:.0e}" if value < 1e-3 or value >= 1000 else f"{value:.2g}"
