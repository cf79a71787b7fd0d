"""Every checkpoint found in the wild: what became of it, how soon, in how much memory, and what was said.

    SP_REAL_DATA=… python -m benchmarks.checkpoints     # writes benchmarks/results/checkpoints.json

Each file is loaded in a fresh process: time and growth of memory (mapped pages included) of reading alone, then the
time of ``sp.load`` and of one forward pass; processor time of one thread, so that a busy machine disturbs little. Then
a network of about 100 MB (torchvision's resnet50, random weights) in each container, wrapped with the state of its
optimiser too, and the peak of reading it as a multiple of its weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import json, re, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
torch.set_num_threads(1)
import sp_core as sp
from sp_core.checkpoints.read import read
from sp_core.errors import SpError
from tests.fuzz.seeds import network, saved
from sp_core.checkpoints.read import read_bytes
read_bytes(saved(network().state_dict()))  # warm: imports
sp.load("bundled:textures-alexnet", device="cpu")
def kilobytes(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def timed(call):
    began = time.process_time()
    try:
        answer = call()
    except SpError as error:
        answer = error
    return round(time.process_time() - began, 3), answer
path = sys.argv[1]
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
seconds, found = timed(lambda: read(path))
row = {"read s": seconds, "peak MB": round((kilobytes("VmHWM") - before) / 1024, 1)}
if isinstance(found, SpError):
    row |= {"verdict": "refused", "message": str(found)}
else:
    weights = sum(t.nbytes for t in {id(t): t for t in found.tensors.values()}.values()) / 2**20
    row |= {"container": found.container, "tensors": len(found.tensors), "weights MB": round(weights, 1)}
    if weights > 20:
        row["peak / weights"] = round(row["peak MB"] / weights, 3)
    del found
    row["load s"], net = timed(lambda: sp.load(path, device="cpu"))
    if isinstance(net, SpError):
        row |= {"verdict": "refused", "message": str(net)}
    else:
        row |= {"verdict": net.confidence, "architecture": net.architecture, "message": list(net.warnings)}
        if net.confidence != "weights-only":
            row["forward s"] = timed(lambda: sp.predict(net, torch.rand(1, *net.input_size)))[0]
            row["all s"] = round(row["load s"] + row["forward s"], 3)
print(json.dumps(row))
"""


def probe(path: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"verdict": "FAILED", "message": done.stderr[-500:]}
    return json.loads(done.stdout.splitlines()[-1])


def written(folder: Path) -> list[Path]:
    """One network of 98 MB in every container."""
    import safetensors.torch
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.resnet50().eval()
    state = module.state_dict()
    moments = {
        place: {"exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one), "step": 3}
        for place, one in enumerate(module.parameters())
    }
    wrapped = {"state_dict": state, "epoch": 3, "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]}}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(wrapped, folder / "zip, optimiser.pth")
    torch.save(wrapped, folder / "legacy, optimiser.pth", _use_new_zipfile_serialization=False)
    torch.save({f"module.{key}": value.half() for key, value in state.items()}, folder / "half, module.pth")
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    halves = dict(list(state.items())[:160]), dict(list(state.items())[160:])
    names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    for name, part in zip(names, halves, strict=True):
        safetensors.torch.save_file(part, folder / name)
    where = {key: name for name, part in zip(names, halves, strict=True) for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), folder / "script.pt")
    return sorted(path for path in folder.iterdir() if path.name not in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="files whose name holds this")
    args = parser.parse_args()
    data = os.environ.get("SP_REAL_DATA")
    wild = sorted(path for path in (Path(data) / "checkpoints").iterdir()) if data else []
    rows: dict[str, dict] = {"found in the wild": {}, "resnet50, 98 MB": {}}
    with tempfile.TemporaryDirectory() as folder:
        for group, paths in (("found in the wild", wild), ("resnet50, 98 MB", written(Path(folder)))):
            for path in paths:
                if args.only not in path.name:
                    continue
                rows[group][path.name] = row = probe(path)
                words = row["message"] if isinstance(row["message"], str) else " ".join(row["message"])
                words = words.replace("\n", " ").replace(str(folder), "")
                print(
                    f"{path.name:36} {row['verdict']:12} {row.get('architecture') or '-':26}"
                    f" read {row.get('read s', 0):6.3f} s {row.get('peak MB', 0):6.1f} MB"
                    f" {row.get('peak / weights', '')!s:5} all {row.get('all s', '-')!s:6} {words[:110]}",
                    flush=True,
                )
    if args.only or not wild:
        return
    answer = {
        "versions": {"torch": torch.__version__},
        "setup": "each file in a fresh process that has read a small one before; processor time of 1 thread",
        **rows,
    }
    path = Path(__file__).parent / "results" / "checkpoints.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
