"""What a benchmark leaves: a JSON file with its setting and details, and the few lines that the README's table shows.

python -m benchmarks.record        # renders benchmarks/results/*.json into the README's table
"""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sp_core.allocator import keep_maps

keep_maps()  # as the app and the command line do; what stands beside ours gains by it too
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: `make bench` writes what stands between these lines -->", "<!-- end of benchmarks -->"


def line(question: str, beside: str, ratio: float | str, spread: str = "", aim: str = "") -> dict[str, Any]:
    """One line of the README's table: what was asked, what it is measured beside, the ratio, its spread, the aim."""
    return {"question": question, "beside": beside, "ratio": ratio, "spread": spread, "aim": aim}


def middle(ratios: Sequence[float]) -> tuple[float, str]:
    """The median of the rounds, and what its spread says: the least and the largest."""
    return statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"


def write(
    name: str, setup: str, lines: Sequence[Mapping[str, Any]], details: Any, packages: Sequence[str] = ()
) -> Path:
    """Write ``results/NAME.json``: versions, machine, ``setup`` in a sentence, ``lines`` and all ``details``."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    content = {
        "benchmark": name,
        "setup": setup,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
        "machine": {
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load": round(os.getloadavg()[0], 1),
        },
        "lines": list(lines),
        "details": details,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def table() -> str:
    """All lines of all results as a Markdown table."""
    rows = ["| what | beside | ratio | spread | aim |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        for row in json.loads(path.read_text("utf-8")).get("lines", ()):
            cells = [row["question"], row["beside"], _number(row["ratio"]), row["spread"], row["aim"]]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"README.md has no line '{BEGIN}'")
    readme.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
