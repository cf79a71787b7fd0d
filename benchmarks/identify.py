"""Whether saved networks are recognised, and how long that takes.

    python -m benchmarks.identify                              # times of a few files; writes results/identify.json
    python -m benchmarks.identify --torchvision --folder TMP   # every classifier in five containers, on disk (an hour)
    python -m benchmarks.identify --timm --folder TMP          # the convolutional networks of timm, in memory (an hour)

``--torchvision``: each classifier with random weights is written to TMP as five files, one after the other (bare,
``module.``, wrapped with the momentum of SGD beside it, Lightning's way, safetensors), loaded, compared (architecture,
``exact``, every tensor) and deleted. ``--timm``: each network below ``--most`` million parameters whose
source is convolutional gets random weights, none of them zero; its state dict is identified, and both networks are run
on the same random image. Both leave one JSON line a network in TMP, are resumed by running them again, and write
results/identify_torchvision.json and identify_timm.json when they are through.
"""

import argparse
import itertools
import json
import os
import random
import resource
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import safetensors.torch
import torch

from benchmarks import record
from sp_core.checkpoints import catalogue, load
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.read import Checkpoint

CONTAINERS = ("bare", "module.", "wrapped", "lightning", "safetensors")
# The sources of timm whose networks are convolutions throughout (squeeze-and-excitation counts as such).
CONVOLUTIONAL = (
    "byobnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet ghostnet hardcorenas hgnet "
    "hrnet inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 mambaout mobilenetv3 nasnet nfnet "
    "pnasnet rdnet regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls senet sknet starnet tresnet "
    "vgg vovnet xception xception_aligned"
)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, none of them zero and no variance negative, as cheaply as possible."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                spread = (1 / max(1, value[0].numel())) ** 0.5 if value.ndim > 1 else 0.1
                value.uniform_(-spread, spread, generator=generator)
                if value.ndim == 1 and (name.endswith(("weight", "running_var", "gamma")) or "scale" in name):
                    value.add_(1)
    return module.eval()


def save(state: dict, container: str, path: Path) -> None:
    if container == "safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    elif container == "bare":
        torch.save(state, path)
    elif container == "module.":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    elif container == "wrapped":
        weights = [value for value in state.values() if value.is_floating_point()]
        momentum = {index: {"momentum_buffer": value.clone()} for index, value in enumerate(weights)}
        group = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "params": list(range(len(weights)))}
        optimizer = {"state": momentum, "param_groups": [group]}
        torch.save({"epoch": 90, "arch": "net", "state_dict": state, "best_acc1": 75.0, "optimizer": optimizer}, path)
    else:
        inside = {f"model.{key}": value for key, value in state.items()}
        content = {"epoch": 9, "global_step": 900, "pytorch-lightning_version": "2.5.0", "state_dict": inside}
        torch.save({**content, "callbacks": {}, "optimizer_states": [], "hyper_parameters": {"lr": 0.1}}, path)


def torchvision(folder: Path, only: list[str], stop: bool = False) -> list[dict]:
    done = resumed(folder / "torchvision.jsonl")
    if stop:
        return list(done.values())
    sizes = {
        short: sum(torch.Size(shape).numel() for shape in catalogue.blueprint(f"torchvision:{short}").shapes.values())
        for short in only or catalogue.torchvision_names()
    }
    for short in sorted(sizes, key=sizes.get):
        if short in done:
            continue
        name = f"torchvision:{short}"
        module = catalogue.skeleton(name).to_empty(device="cpu") if sizes[short] > 3e8 else catalogue.build(name)
        state = randomised(module).state_dict()
        row = {"name": short, "parameters": sizes[short], "containers": {}}
        for container in CONTAINERS:
            path = folder / ("net.safetensors" if container == "safetensors" else "net.pth")
            try:
                save(state, container, path)
                size = path.stat().st_size
                os.environ["SP_MAX_FILE_GB"] = "8" if size > 3.9 * 2**30 else "4"
                start = time.perf_counter()
                net = load(path, device="cpu")
                seconds = time.perf_counter() - start
                held = net.module.state_dict()
                same = held.keys() == state.keys() and all(torch.equal(held[key], state[key]) for key in state)
                row["containers"][container] = {
                    "architecture": net.architecture,
                    "confidence": net.confidence,
                    "right": net.architecture == name and net.confidence == "exact" and same,
                    "bytes": size,
                    "seconds": round(seconds, 3),
                }
                del net, held
            finally:
                path.unlink(missing_ok=True)
        row["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        done[short] = keep(folder / "torchvision.jsonl", row)
        del state, module
    return [done[short] for short in sizes]


def timm_names(most_of_one: int) -> list[str]:
    """One of each source, then the second of each, and so on: a run that is stopped has seen every source.

    A source is what timm itself calls a family. Large ones are drawn from, once and for all, so that the 115 networks
    of ``efficientnet`` do not stand for all of timm.
    """
    import timm

    each = [timm.list_models(module=source) for source in CONVOLUTIONAL.split()]
    each = [random.Random(0).sample(names, min(len(names), most_of_one)) for names in each]
    return [name for turn in itertools.zip_longest(*each) for name in turn if name is not None]


def timm(folder: Path, only: list[str], most: float, most_of_one: int, stop: bool = False) -> list[dict]:
    import timm as library

    done = resumed(folder / "timm.jsonl")
    names = only or timm_names(most_of_one)
    if stop:
        return [done[name] for name in names if name in done]
    for name in names:
        if name in done:
            continue
        row = {"name": name, "source": library.models._registry._model_to_module.get(name, "")}
        try:
            with torch.no_grad():
                row |= one_of_timm(name, most)
        except Exception as error:  # noqa: BLE001  # a crash is a result
            row |= {"confidence": f"{type(error).__name__}: {error}"[:200], "architecture": "", "also": []}
        done[name] = keep(folder / "timm.jsonl", row)
    return [done[name] for name in names]


def one_of_timm(name: str, most: float) -> dict:
    import timm as library

    from sp_core.checkpoints import timm_names as known

    count = sum(value.numel() for value in known.skeleton(name).parameters())
    if count > most * 1e6:
        return {"skipped": f"{count / 1e6:.0f} million parameters"}
    module = randomised(library.create_model(name, pretrained=False))
    state = {key: value.clone() for key, value in module.state_dict().items()}
    start = time.perf_counter()
    verdict, found, _ = identify(Checkpoint(state))
    seconds = time.perf_counter() - start
    row = {"parameters": count, "architecture": verdict.architecture, "confidence": verdict.confidence}
    row |= {"also": list(verdict.also), "seconds": round(seconds, 3), "differences": list(verdict.differences)}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    row["signature"] = known.hash_names(f"{key} {shape}" for key, shape in shapes.items())
    if verdict.confidence == "weights-only":
        return row
    sides = (128, module.pretrained_cfg["input_size"][1])
    for side in sides:
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        try:
            right = module(images)
        except Exception:  # noqa: BLE001  # timm's networks refuse small images in many ways
            continue
        off = float((found.eval()(images) - right).abs().max() / right.abs().max())
        row |= {"side": side, "difference": off, "same": off < 1e-5}
        return row
    return row | {"skipped": f"runs on no image of {sides} pixels"}


def resumed(path: Path) -> dict[str, dict]:
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.is_file() else []
    return {row["name"]: row for row in rows}


def keep(path: Path, row: dict) -> dict:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row)[:300], flush=True)
    return row


def report_torchvision(rows: list[dict]) -> None:
    each = [one for row in rows for one in row["containers"].values()]
    wrong = [row["name"] for row in rows if not all(one["right"] for one in row["containers"].values())]
    right = sum(one["right"] for one in each)
    megabytes = sum(one["bytes"] for one in each) / 2**20
    seconds = sum(one["seconds"] for one in each)
    details = {"files": len(each), "right": right, "wrong": wrong, "slowest": slowest(rows), "networks": rows}
    details["megabytes a second, reading and identifying"] = round(megabytes / seconds)
    what = f"torchvision's {len(rows)} classifiers in {len(CONTAINERS)} containers"
    said = record.line(what, "recognised exactly", right / len(each), aim="1.00")
    setup = "random weights, written to disk, loaded by sp_core.checkpoints.load; every tensor compared"
    print(record.write("identify_torchvision", setup, [said], details, ["torchvision"]))
    print(right, "of", len(each), "wrong:", wrong)


def slowest(rows: list[dict]) -> dict:
    pairs = [(one["seconds"], f"{row['name']} {key}") for row in rows for key, one in row["containers"].items()]
    return {name: seconds for seconds, name in sorted(pairs, reverse=True)[:5]}


def report_timm(rows: list[dict], most: float, most_of_one: int) -> None:
    tested = [row for row in rows if "skipped" not in row]
    for row in tested:  # one network may have several homes: what counts is that it computes the same
        row["right"] = row["confidence"] == "exact" and row.get("same", False)
        row["wrong exact"] = row["confidence"] == "exact" and not row["right"]
    distinct = defaultdict(list)
    for row in tested:
        distinct[row.get("signature", row["name"])].append(row)
    alone = [all(row["right"] for row in same) for same in distinct.values()]
    share = sum(row["right"] for row in tested) / len(tested)
    failing = {
        row["name"]: f"{row['confidence']} {row['architecture']}: {' '.join(row.get('differences', ()))}"
        for row in tested
        if not row["right"]
    }
    details = {
        "networks": len(tested),
        "sources": len({row["source"] for row in tested}),
        "exact": sum(row["right"] for row in tested),
        "sets of names and shapes": len(distinct),
        "of which all exact": sum(alone),
        "wrong exact": [row["name"] for row in tested if row["wrong exact"]],
        "likely": sum(row["confidence"] == "likely" for row in tested),
        "likely and the same outputs": sum(row["confidence"] == "likely" and row.get("same", False) for row in tested),
        "weights-only": [row["name"] for row in tested if row["confidence"] == "weights-only"],
        "skipped": dict(Counter(row["skipped"].partition(" ")[2] for row in rows if "skipped" in row).most_common(8)),
        "not exact": failing,
        "rows": tested,
    }
    by_name = (
        f"timm: {len(tested)} convolutional networks of {details['sources']} families, {most_of_one} of each at most"
    )
    wrong = f"{len(details['wrong exact'])} wrong"
    lines = [record.line(by_name, "recognised exactly", share, spread=wrong, aim="0.95")]
    setup = f"random weights, below {most:g} million parameters; the state dict identified, outputs compared"
    print(record.write("identify_timm", setup, lines, details, ["timm", "torchvision"]))
    print({key: value for key, value in details.items() if key != "rows"})


def times() -> None:
    """Read, identify and run one image, beside torch.load and load_state_dict into the network one knows."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for short in ("squeezenet1_1", "resnet50", "efficientnet_b4"):
            name = f"torchvision:{short}"
            module = randomised(catalogue.build(name))
            path = Path(folder) / "net.pth"
            torch.save(module.state_dict(), path)
            images = torch.rand(1, 3, 224, 224)
            ours, plain = [], []
            for _ in range(4):
                start = time.perf_counter()
                with torch.no_grad():
                    load(path, device="cpu").module(images)
                ours.append(time.perf_counter() - start)
                start = time.perf_counter()
                with torch.no_grad():
                    known = catalogue.build(name)
                    known.load_state_dict(torch.load(path, weights_only=True))
                    known.eval()(images)
                plain.append(time.perf_counter() - start)
            rows[short] = {"ours": min(ours), "plain": min(plain), "first": ours[0]}
            rows[short]["megabytes"] = round(path.stat().st_size / 2**20)
    lines = [
        record.line(f"read, identify and run {short}", "torch.load into the known network", row["ours"] / row["plain"])
        for short, row in rows.items()
    ]
    print(record.write("identify", "best of 4, CPU, one image of 224 pixels", lines, rows, ["torchvision"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torchvision", action="store_true")
    parser.add_argument("--timm", action="store_true")
    parser.add_argument("--folder", type=Path, help="for files and the lines of what is done")
    parser.add_argument("--most", type=float, default=100.0, help="million parameters of timm's networks")
    parser.add_argument("--each", type=int, default=20, help="networks of one of timm's families at the most")
    parser.add_argument("--only", nargs="*", default=[], help="names; nothing is written to results")
    parser.add_argument("--done", action="store_true", help="report on what is done so far")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    if (args.torchvision or args.timm) and args.folder is None:
        parser.error("--folder is needed")
    if args.torchvision:
        args.folder.mkdir(parents=True, exist_ok=True)
        rows = torchvision(args.folder, args.only, args.done)
        if not args.only:
            report_torchvision(rows)
    if args.timm:
        args.folder.mkdir(parents=True, exist_ok=True)
        rows = timm(args.folder, args.only, args.most, args.each, args.done)
        if not args.only:
            report_timm(rows, args.most, args.each)
    if not args.torchvision and not args.timm:
        times()


if __name__ == "__main__":
    main()
