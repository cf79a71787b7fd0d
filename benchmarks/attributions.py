"""Backprop rules, DeepLift and LRP on every CNN classifier of torchvision, beside slow references and captum.

    python -m benchmarks.attributions            # writes benchmarks/results/attributions.json; some 20 minutes
    python -m benchmarks.attributions resnet18   # only these, into the same file

Networks are untrained and calibrated, at the smallest input of ``SIZES`` at which the signal does not vanish, one
image of noise, the class with the largest logit. Differences are the largest one relative to the largest value.
Untrained EfficientNets multiply so strongly that logits reach 1e9 and more on images unlike the noise they were
calibrated on; what float64 rounds away there can be more than the difference that DeepLift explains. The backprop
page reads the file to say what captum does on the network that is open.
"""

import copy
import gc
import json
import sys
import warnings
from pathlib import Path

import torch
from captum.attr import LRP, DeepLift, GuidedBackprop
from torchvision import models

import sp_core as sp
from benchmarks import record
from sp_core.deep_lift import deep_lift, in_float64
from sp_core.methods import blurred
from sp_core.rules import RULES, compare_backprop
from sp_core.targets import read_target

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from references import classifier, lifted, off, reference

warnings.filterwarnings("ignore")
PATH = record.RESULTS / "attributions.json"
SIZES = (32, 48, 64, 80, 96, 224)
LARGEST = 300e6  # parameters of which a float64 copy is made


def names():
    """All classifiers that are convolutional networks."""
    apart = ("vit", "swin", "maxvit")
    return [name for name in models.list_models(module=models) if not name.startswith(apart)]


def made(name):
    """The network, an image and the class, at the smallest size that gives a signal."""
    for size in SIZES:
        try:
            module = classifier(name, size)
            image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
            net = sp.Network(module, name=name, input_size=(3, size, size))
            target = int(sp.predict(net, image)[0].argmax())
            found = compare_backprop(net, image, target)
        except (RuntimeError, ValueError, AssertionError):  # too small for its pools
            continue
        if all(answer.gradient.any() for answer in found.values()):
            return net, image, target, found
    raise RuntimeError(f"{name} gives no signal at {SIZES}")


def rules(net, image, target, found):
    """Ours and captum's against the written-out rules; in float64 where float32 rounding is above 1e-5."""
    row = {"rectifiers": found["gradient"].rectifiers, "untouched": dict(found["gradient"].untouched)}
    for rule in RULES:
        wanted = reference(net.clone(), image, lambda y: y[:, target], rule)
        if not row["rectifiers"] and rule != "gradient":
            row[rule] = None if torch.equal(wanted, found["gradient"].gradient) else "the reference found a rectifier"
            continue
        row[rule] = off(found[rule].gradient, wanted)
        if row[rule] > 1e-5:
            wide, pixels = in_float64(net), image.double()
            wanted = reference(wide.clone(), pixels, lambda y: y[:, target], rule)
            row[rule + " in float64"] = off(sp.backprop(wide, pixels, target, rule), wanted)
    plain = found["gradient"].gradient
    theirs = GuidedBackprop(net.clone()).attribute(image.clone().requires_grad_(), target=target).detach()
    row["captum guided from the gradient"] = off(theirs, plain)
    row["captum guided from ours"] = off(theirs, found["guided"].gradient) if "guided" in found else None
    row["captum guided from the reference"] = off(
        theirs, reference(net.clone(), image, lambda y: y[:, target], "guided")
    )
    row["captum guided"] = said(row)
    return row


def said(row):
    if not row["rectifiers"]:
        return "plain gradient, and there is nothing to guide"
    if row["captum guided from the reference"] < 1e-4:
        return "guided"
    return "plain gradient" if row["captum guided from the gradient"] < 1e-4 else "partly guided"


def lifts(net, image, target):
    """DeepLift against a black and a blurred image: ours as the page runs it, and captum's in float64."""
    row = {}
    for name, start in {"black": torch.zeros_like(image), "blurred": blurred(image)}.items():
        aim = read_target(net, target, 1)
        ours = deep_lift(net, image, start, aim)
        part = {"gap": relative(ours.gap, ours.expected), "precision": str(ours.precision).removeprefix("torch.")}
        if sum(p.numel() for p in net.module.parameters()) < LARGEST:
            wide, pixels, start = in_float64(net), image.double(), start.double()
            exact = deep_lift(wide, pixels, start, aim)
            part["gap in float64"] = relative(exact.gap, exact.expected)
            slow = lifted(wide.clone(), pixels, start, lambda y: y[:, target])
            missing = slow.sum() - exact.expected
            part["reference's gap"] = relative(missing, exact.expected)
            part["from the reference"] = off(exact.contributions, slow)
            try:
                theirs = DeepLift(wide.clone()).attribute(pixels.requires_grad_(), start, target=target).detach()
                part["captum's gap"] = relative(theirs.sum() - exact.expected, exact.expected)
                part["captum from ours"] = off(theirs, exact.contributions)
            except Exception as error:  # noqa: BLE001 - whatever captum raises is its answer
                part["captum raises"] = " ".join(str(error).split())[:120]
        row[name] = part
    return row


def relative(gap, expected):
    return float((gap.abs() / expected.abs()).max())


def relevance(net, image, target):
    """What captum's LRP does, and what :func:`sp_core.attribute` says; how far the two are apart.

    At 64 pixels or more: on a last map of one position a pooling that captum misses does no harm.
    """
    row, theirs = {}, None
    side = max(64, net.input_size[1])
    net, image = net.fed(input_size=side), torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    try:
        inputs = image.clone().requires_grad_()
        clone = copy.deepcopy(net.clone())  # captum writes to the weights
        theirs = LRP(clone).attribute(inputs, target=target).detach()
        row["captum"] = "finite" if bool(theirs.isfinite().all()) else "not finite"
        row["captum's sum / logit"] = float(theirs.sum()) / float(sp.predict(net, image)[0, target])
    except Exception as error:  # noqa: BLE001
        row["captum raises"] = " ".join(str(error).split())[:120]
    try:
        ours = sp.attribute(net, image, target, "lrp").map
        row["ours"] = "applies"
        if theirs is not None:
            row["captum from ours"] = off(theirs, ours)
    except sp.SpError as error:
        row["ours"] = str(error)
    return row


def one(name):
    net, image, target, found = made(name)
    row = {"size": net.input_size[1], **rules(net, image, target, found)}
    row["deep lift"] = lifts(net, image, target)
    if sum(p.numel() for p in net.module.parameters()) < LARGEST:
        row["lrp"] = relevance(net, image, target)
    return row


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.2g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return value


def main(chosen):
    torch.set_num_threads(1)
    rows = json.loads(PATH.read_text())["details"]["networks"] if PATH.exists() else {}
    for name in chosen or names():
        rows[name] = rounded(one(name))
        gc.collect()
        print(name, json.dumps(rows[name], ensure_ascii=False), file=sys.stderr, flush=True)
        write(rows)
    print(json.dumps(summary(rows), indent=1, ensure_ascii=False))


def write(rows):
    """The file, after each network: a run that is ended has lost nothing."""
    found = summary(rows)
    many = f"{len(rows)} torchvision classifiers"
    lines = [
        record.line(
            "backprop rules, largest difference",
            f"written-out rules, {many}",
            f"{found['rules: largest difference from the reference']:.0e}",
            f"captum guided backprop is guided on {found['captum guided'].get('guided', 0)}",
            "below 1e-05",
        ),
        record.line(
            "DeepLift, largest completeness gap",
            f"target(image) - target(reference), {found['deep lift: networks with rectifiers']} with rectifiers",
            f"{found['deep lift: largest gap on them']:.0e}",
            f"captum: within 1 % on {found['captum deep lift: within 1 % on both']} of {len(rows)}, "
            f"raises on {found['captum deep lift: raises']}",
            "below 1e-03",
        ),
    ]
    setup = " ".join(__doc__.split("\n\n")[2].split())
    record.write("attributions", setup, lines, {"summary": found, "networks": rows}, ["torchvision", "captum"])


def summary(rows):
    """What a reader wants first."""
    worst = [max(r.get(rule + " in float64", r[rule]) or 0 for rule in RULES) for r in rows.values()]
    said = [row["captum guided"] for row in rows.values()]
    rectified = [row for row in rows.values() if row["rectifiers"]]
    parts = [part for row in rectified for part in row["deep lift"].values()]
    smooth = [part for row in rows.values() if not row["rectifiers"] for part in row["deep lift"].values()]
    theirs = [all(p.get("captum's gap", 1) < 1e-2 for p in row["deep lift"].values()) for row in rows.values()]
    return {
        "networks": len(rows),
        "rules: largest difference from the reference": max(worst),
        "captum guided": {verdict: said.count(verdict) for verdict in sorted(set(said))},
        "deep lift: networks with rectifiers": len(rectified),
        "deep lift: largest gap on them": max(part["gap"] for part in parts),
        "deep lift: gap below 1e-3 on the others": f"{sum(p['gap'] < 1e-3 for p in smooth)} of {len(smooth)} maps",
        "deep lift: runs in float64": sum(part["precision"] == "float64" for part in parts),
        "deep lift: largest difference from the reference": max(
            (p["from the reference"] for p in parts if p.get("reference's gap", 1) < 1e-6), default=None
        ),
        "captum deep lift: raises": sum(
            any("captum raises" in p for p in row["deep lift"].values()) for row in rows.values()
        ),
        "captum deep lift: within 1 % on both": sum(theirs),
        "captum lrp: raises": sum("captum raises" in row.get("lrp", {}) for row in rows.values()),
        "lrp: applies": sum(row.get("lrp", {}).get("ours") == "applies" for row in rows.values()),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
