"""What an index costs beside the bare forward pass over the same decoded batches.

``python -m benchmarks.patches`` prints one line a network. Each batch is passed bare and indexed in turn, in processor
time of one thread, so that a busy machine disturbs both alike. The bare passes have the index's own batches: 4 images
of 224 × 224, whose maps stay in the processor's cache. The first batches cost most, because every image is among the
best so far: the ratio falls with the number of images. Aim: at most 1.25.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

import sp_core as sp
from benchmarks import record
from sp_core.overwriting import in_place
from sp_core.patches import build

CASES = (
    ("torchvision:mobilenet_v2", 224),
    ("torchvision:alexnet", 224),
    ("torchvision:resnet18", 224),
    ("bundled", 64),
)


class Decoded:
    """Images that are in memory already: what is measured is not their decoding."""

    name, classes, fingerprint = "decoded", ("a", "b"), "0" * 16

    def __init__(self, count: int, side: int) -> None:
        self.images = torch.rand(count, 3, side, side)
        self.labels = torch.arange(count) % 2

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, start: int, stop: int, network=None):
        return self.images[start:stop], self.labels[start:stop]


def network(name: str, side: int) -> sp.Network:
    if name == "bundled":
        return sp.load("bundled:textures-alexnet", device="cpu")
    import torchvision

    torch.manual_seed(0)
    return sp.Network(getattr(torchvision.models, name.split(":")[1])(), name=name, input_size=(3, side, side))


def turns(net: sp.Network, data: Decoded, batch: int) -> tuple[float, float, float, int]:
    """Seconds of bare passes, of bare ones in place and of the index over the same images, in turn; its bytes.

    The network that viewers share does not overwrite maps; in place, its activations do, where its author let them.
    What is planned once (receptive fields, which layer follows which) was cached by the call before.
    """
    clock = time.thread_time
    bare, index, modules = [0.0, 0.0], 0.0, (net.module, in_place(net.clone()))
    with tempfile.TemporaryDirectory() as folder:
        records, done = sp.build_patch_index(net, data, folder), 0
        while done < len(data):
            began = clock()
            there = next(records).done
            index += clock() - began
            for which, module in enumerate(modules):
                began = clock()
                with torch.no_grad():
                    for first in range(done, there, batch):
                        module(net.normalise(data.batch(first, min(first + batch, there))[0]))
                bare[which] += clock() - began
            done = there
        return *bare, index, sum(path.stat().st_size for path in Path(folder).iterdir())


def crp(net: sp.Network, data: Decoded, count: int = 24) -> tuple[float, int]:
    """Seconds an image that zennit-crp takes, and of how many layers: the last convolution of each stage of a ResNet.

    It looks for the images of greatest relevance, and on the way of greatest activation, so it also goes backwards.

    Raises:
        ImportError: it is not installed.
    """
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    layers = [f"layer{stage}.1.conv2" for stage in range(1, 5)]
    pairs = [(data.images[image], int(data.labels[image])) for image in range(count)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        concepts = {name: ChannelConcept() for name in layers}
        seen = FeatureVisualization(CondAttribution(net.clone()), pairs, concepts, path=folder)
        began = time.thread_time()
        seen.run_distributed(EpsilonPlusFlat(canonizers=[ResNetCanonizer()]), 0, count, batch_size=4)
        return (time.thread_time() - began) / count, len(layers)


def beside_crp(net: sp.Network, data: Decoded, forward: float, index: float) -> list[dict[str, object]]:
    """The line of zennit-crp: seconds an image of ours, of the bare pass, and of its own on the same images."""
    try:
        spent, layers = crp(net, data)
    except ImportError:
        print(f"zennit-crp is not installed; published: {PUBLISHED}")
        return []
    question = f"patch index, all layers of {net.name} (zennit-crp: {layers} layers, relevance too)"
    print(f"zennit-crp {spent / forward:.2f} x bare, {spent / index:.2f} x ours")
    also = f"zennit-crp takes {spent / forward:.1f} times the bare passes"
    return [record.line(question, "zennit-crp 0.6 an image", index / spent, also)]


# Of its readme, and measured for this project's survey of peers on a busy machine; shown where it is not installed.
PUBLISHED = "30 minutes for VGG-16 and the ImageNet test set on a Titan; 1.10 s beside 0.12 s of a forward, ResNet-18"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024, help="of 224 × 224; eight times as many of 64 × 64")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines, details = [], {}
    for name, side in CASES:
        if args.only not in name:
            continue
        net, data = network(name, side), Decoded(args.images * (8 if side < 100 else 1), side)
        batch = build.identify(net, data, 9, None, None)["settings"]["batch"]
        sp.predict(net, data.batch(0, batch)[0])
        found = [turns(net, data, batch) for _ in range(args.runs)]
        forward = statistics.median(bare for bare, *_ in found) / len(data) * 1000
        details[name] = {"images": len(data), "batch": batch, "ms an image, bare": forward, "bytes": found[0][3]}
        for which, beside, aim in ((1, "the same in place", ""), (0, "the bare forward passes", "1.25")):
            ratios = sorted(row[2] / row[which] for row in found)
            ratio, spread = record.middle(ratios)
            details[name][f"ratios to {beside}"] = ratios
            lines.append(record.line(f"patch index, {name}", beside, ratio, spread, aim))
            print(f"{name:28} {forward:6.1f} ms/image bare, index / {beside} {ratio:5.3f} ({spread})", flush=True)
        if name == "torchvision:resnet18":
            lines += beside_crp(net, data, forward / 1000, forward / 1000 * ratio)
    setup = (
        f"{args.images} images of 224 × 224 decoded before (eight times as many of 64 × 64), all layers; bare passes "
        f"in the index's own batches, in turn with it; processor time of one thread, medians of {args.runs} runs"
    )
    print(record.write("patches", setup, lines, details))


if __name__ == "__main__":
    main()
