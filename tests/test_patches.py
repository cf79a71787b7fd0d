"""The index of maximally activating patches against brute force, its laws, and what a kill leaves."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core import datasets
from sp_core.datasets import passes
from sp_core.errors import SpError
from sp_core.patches import build, extremes, merge, store, view
from sp_core.patches.counting import Counting
from sp_core.patches.noting import first_maxima
from sp_core.patches.tally import BINS, SAMPLES, Tally, grid
from tests.killing import killed

ROOT = Path(__file__).resolve().parents[1]


class Net(nn.Module):
    """What makes indexing hard: a reused ReLU, a branch, an in-place sum, a normalisation, a vector at the end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(5, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.block(x)
        y += x
        return self.head(self.pool(self.relu(y)).flatten(1))


RISEN_FROM = {"relu": "stem"}  # not block.1, some of whose scales are negative, and not relu#2, which reads a sum
LAYERS = ("stem", "relu", "block.0", "block.1", "relu#2", "head")


class Noise:
    """Random images with labels, some unknown, that count how often each was asked for; can grow at its end."""

    name, classes = "noise", ("even", "odd", "never")

    def __init__(self, count=70, seed=0, damaged=()):
        self.count, self.seed, self.damaged, self.asked = count, seed, set(damaged), []

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return f"{self.seed:08x}{self.count:08x}"

    def first(self, count):
        return Noise(count, self.seed)

    def batch(self, start, stop, network=None):
        numbers = range(start, min(stop, self.count))
        if self.damaged & set(numbers):
            raise SpError("damaged")
        self.asked += numbers
        rows = [torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(self.seed * 10_000 + i)) for i in numbers]
        return torch.stack(rows), torch.tensor([i % 2 if i % 7 else -1 for i in numbers])

    def picture(self, index):
        return sp.images.to_picture(self.batch(index, index + 1)[0][0])


@pytest.fixture(scope="module")
def net():
    return _net()


def _net(seed=0):
    torch.manual_seed(seed)
    module = Net().eval()
    module.block[1].running_mean.uniform_(-1, 1)
    module.block[1].weight.data.uniform_(-1, 1)  # some scales negative: the order turns round
    module.block[1].weight.data[2] = 0
    module.block[1].bias.data[2] = -9  # behind the second ReLU this channel is dead unless the branch saves it
    return sp.Network(module, name="tiny", input_size=(3, 12, 12))


def _build(net, data, folder, **options):
    options = {"batch": 8, "top": 4} | options
    records = list(sp.build_patch_index(net, data, folder, **options))
    return sp.PatchIndex(folder), records


def _bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _maxima(net, data, layer, step=1):
    """float64 ``[images, channels]`` maxima and their flat positions, image by image."""
    rows, places = [], []
    where = RISEN_FROM.get(layer, layer)  # through a rectifier, the place is where its input is largest
    for i in range(0, len(data), step):
        maps = sp.activations(net, data.batch(i, i + step)[0], [layer])[layer]
        maps = maps.reshape(*maps.shape[:2], -1)
        rows.append(maps.double().amax(2))
        places.append(sp.activations(net, data.batch(i, i + step)[0], [where])[where].flatten(2).argmax(2)
                      if maps.shape[2] > 1 else torch.zeros_like(rows[-1]).long())  # fmt: skip
    return torch.cat(rows).numpy(), torch.cat(places).numpy()


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_agrees_with_looking_at_each_image_alone(net, tmp_path, layer):
    data = Noise()
    index, _ = _build(net, data, tmp_path)
    maxima, places = _maxima(net, Noise(), layer)
    width = net.layer(layer).output_shape[-1]
    labels = data.batch(0, len(data))[1].numpy()
    for channel in range(maxima.shape[1]):
        unit = f"{layer}:{channel}"
        for found, order in ((index.top(unit), np.argsort(-maxima[:, channel], kind="stable")),
                             (index.bottom(unit), np.argsort(maxima[:, channel], kind="stable"))):  # fmt: skip
            assert [p.image for p in found] == order[:4].tolist()
            # The network's own arithmetic differs in the last bits between a batch of 8 and of 1.
            np.testing.assert_allclose([p.activation for p in found], maxima[order[:4], channel], rtol=2e-5, atol=2e-6)
            assert [p.label for p in found] == labels[order[:4]].tolist()
            if layer != "head":
                assert [p.position for p in found] == [divmod(int(places[i, channel]), width) for i in order[:4]]
        profile = index.class_profile(unit)
        means = [maxima[labels == label, channel].mean() for label in (0, 1)]
        np.testing.assert_allclose(profile[:2], means, rtol=1e-5, atol=1e-5)
        assert np.isnan(profile[2]), "no image of that class"
        assert index.active_share(unit) == (maxima[:, channel] > 0).mean()
        for patch in index.samples(unit, 6):
            np.testing.assert_allclose(patch.activation, maxima[patch.image, channel], rtol=2e-5, atol=2e-6)
    assert index.dead(layer) == tuple(np.flatnonzero((maxima <= 0).all(0)))


def test_default_layers_and_what_is_kept_once(net, tmp_path):
    index, _ = _build(net, Noise(10), tmp_path / "all")
    assert index.layers == ("stem", "relu", "block.0", "block.1", "block", "relu#2", "head")
    stored = index._state.tallies
    assert "block" not in stored and "block.1" in stored, "a container whose output is its last part's is kept once"
    assert [p.image for p in index.top("block:3")] == [p.image for p in index.top("block.1:3")]
    compact, _ = _build(net, Noise(10), tmp_path / "compact", layers="compact")
    assert compact.layers == ("stem", "block.1", "block", "relu#2", "head")
    one, _ = _build(net, Noise(10), tmp_path / "one", layers=["pool"])
    assert one.layers == ("pool",)


def test_an_in_place_sum_does_not_make_two_layers_one(tmp_path):
    class Sneaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 2, 3))

        def forward(self, x):
            return self.inner(x).add_(1)

    net = sp.Network(nn.Sequential(Sneaky(), nn.Identity()), input_size=(3, 12, 12))
    index, _ = _build(net, Noise(9), tmp_path, layers=["0.inner.0", "0.inner", "0", "1"])
    a, b, c, d = (index.top(f"{name}:0")[0].activation for name in index.layers)
    assert a == b and c == d and c == pytest.approx(a + 1, abs=1e-6)


def test_the_box_holds_all_that_the_unit_sees(net, tmp_path):
    data = Noise(20)
    index, _ = _build(net, data, tmp_path)
    for unit in ("stem:1", "block.1:3", "relu#2:0"):
        for patch in index.top(unit):
            image = data.batch(patch.image, patch.image + 1)[0]
            y, x = patch.position
            outside = torch.rand_like(image)
            box = patch.box
            outside[:, :, box.y0 : box.y1, box.x0 : box.x1] = image[:, :, box.y0 : box.y1, box.x0 : box.x1]
            layer = patch.unit.layer
            value = sp.activations(net, outside, [layer])[layer][0, patch.unit.channel, y, x]
            assert float(value) == pytest.approx(patch.activation, rel=1e-5)
            assert patch.field.height >= box.height > 0 and box == patch.field.clip(12, 12)


def test_merging_parts_is_one_pass_byte_for_byte(net, tmp_path):
    data = Noise(70)
    _build(net, data, tmp_path / "whole")
    edges = [0, 8, 40, 70]
    for i in range(3):
        _build(net, data, tmp_path / f"part{i}", start=edges[i], stop=edges[i + 1])
    merge(tmp_path / "part0", tmp_path / "part1", tmp_path / "left")
    merge(tmp_path / "left", tmp_path / "part2", tmp_path / "left-first")
    merge(tmp_path / "part1", tmp_path / "part2", tmp_path / "right")
    merge(tmp_path / "part0", tmp_path / "right", tmp_path / "right-first")
    whole = _bytes(tmp_path / "whole")
    assert set(whole) == {"index.json", "arrays-00000000-00000070.safetensors"}
    assert _bytes(tmp_path / "left-first") == whole
    assert _bytes(tmp_path / "right-first") == whole
    with pytest.raises(SpError, match=r"ends before image 8 and .* begins with 40"):
        merge(tmp_path / "part0", tmp_path / "part2", tmp_path / "bad")
    _build(net, Noise(70, seed=1), tmp_path / "other")
    with pytest.raises(SpError, match="another dataset"):
        merge(tmp_path / "part0", tmp_path / "other", tmp_path / "bad")


def test_stopping_between_two_batches_loses_nothing(net, tmp_path):
    whole, _ = _build(net, Noise(70), tmp_path / "whole")
    data = Noise(70)
    steps = sp.build_patch_index(net, data, tmp_path / "stopped", 4, batch=8)
    assert [next(steps).done for _ in range(3)] == [8, 16, 24]
    steps.close()
    partial = sp.PatchIndex(tmp_path / "stopped")
    assert (partial.done, partial.total, partial.images) == (24, 70, 24) and len(partial.top("stem:0")) == 4
    again = Noise(70)
    _build(net, again, tmp_path / "stopped")
    assert min(again.asked) == 24
    assert _bytes(tmp_path / "stopped") == _bytes(tmp_path / "whole")
    finished = Noise(70)
    _, records = _build(net, finished, tmp_path / "stopped")
    assert not finished.asked and records[-1].done == 70 and records[-1].saved
    assert whole.done == 70


KILLED = """
import sys, time, torch
sys.path[:0] = [{root!r}, {tests!r}]
from test_patches import Noise, _net
from sp_core.patches import build
import sp_core as sp
torch.set_num_threads(1)
build.SAVE_SECONDS = build.SAVE_SHARE = 0
for record in sp.build_patch_index(_net(), Noise(240), sys.argv[1], 4, batch=8):
    print(record.done, *{{"streamlit", "plotly", "captum", "tensorly", "timm"}} & set(sys.modules), flush=True)
    time.sleep(0.01)
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(net, tmp_path):
    """The child also says whether more than torch and its kin was imported: then its line is no number."""
    _build(net, Noise(240), tmp_path / "whole")
    code = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"))
    killed(code, str(tmp_path / "killed"), past=80)
    there = sp.PatchIndex(tmp_path / "killed")
    assert 0 < there.done < 240, "it was killed in the middle, and can be read"
    data = Noise(240)
    _build(net, data, tmp_path / "killed")
    assert min(data.asked) == there.done
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def test_a_set_that_has_grown_is_not_looked_at_again(net, tmp_path):
    _build(net, Noise(40), tmp_path / "grown")
    longer = Noise(70)
    _build(net, longer, tmp_path / "grown")
    assert sorted(set(longer.asked)) == list(range(40, 70))
    _build(net, Noise(70), tmp_path / "whole")
    assert _bytes(tmp_path / "grown") == _bytes(tmp_path / "whole")


def test_readable_at_every_moment(net, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(build, "SAVE_SHARE", 0)
    seen = []
    for record in sp.build_patch_index(net, Noise(200), tmp_path, 3, batch=8):
        if record.saved:
            index = sp.PatchIndex(tmp_path)
            assert index.done == record.done
            seen.append(index.top("stem:2")[0].activation)
    assert len(seen) > 2 and seen == sorted(seen)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": 1}, "another network"),
        ({"data": Noise(70, seed=5)}, "another data set"),
        ({"data": Noise(30)}, "another data set"),
        ({"top": 5}, "another setting `top`"),
        ({"layers": ["stem"]}, "another choice of layers"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_said_why(net, tmp_path, change, words):
    _build(net, Noise(70), tmp_path)
    before = _bytes(tmp_path)
    other = _net(change["net"]) if "net" in change else net
    with pytest.raises(SpError, match=words):
        _build(
            other, change.get("data", Noise(70)), tmp_path, **{k: change[k] for k in ("top", "layers") if k in change}
        )
    assert _bytes(tmp_path) == before
    _, records = _build(other, Noise(20), tmp_path, resume=False, top=2)
    assert records[-1].done == 20


def test_not_a_number_is_said_and_nothing_is_written(tmp_path):
    net = _net()
    module = net.clone()
    module.head.weight = nn.Parameter(torch.full_like(module.head.weight, torch.nan))
    broken = sp.Network(module, name="diverged", input_size=(3, 12, 12))
    with pytest.raises(SpError, match="Layer head of diverged gives nan on image 0"):
        _build(broken, Noise(9), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_damaged_pictures_are_passed_over_and_counted(net, tmp_path):
    index, records = _build(net, Noise(30, damaged={3, 17}), tmp_path)
    assert records[-1].skipped == index.skipped == 2 and index.images == 28
    maxima, _ = _maxima(net, Noise(30), "stem")
    maxima[[3, 17]] = -np.inf
    assert [p.image for p in index.top("stem:0")] == np.argsort(-maxima[:, 0], kind="stable")[:4].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_what_the_cpu_finds_and_goes_on_with_the_same_bytes(tmp_path):
    precise = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        nets = [_net(), sp.Network(_net().clone().cuda(), name="tiny", input_size=(3, 12, 12))]
        cpu, gpu = (_build(n, Noise(700), tmp_path / n.device.type, batch=64)[0] for n in nets)
        for layer in LAYERS:
            for channel in range(cpu.channels(layer)):
                for which in ("best", "worst", "random"):
                    a, b = (index.patches(f"{layer}:{channel}", which) for index in (cpu, gpu))
                    if layer != "relu#2":  # some of its channels are 0 on most images: their order is any
                        assert [p.image for p in a] == [p.image for p in b]
                    values = [[p.activation for p in side] for side in (a, b)]
                    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(
                    *(i.class_profile(f"{layer}:{channel}") for i in (cpu, gpu)), rtol=1e-4, atol=1e-5
                )
        steps = sp.build_patch_index(nets[1], Noise(700), tmp_path / "stopped", 4, batch=64)
        assert [next(steps).done for _ in range(3)] == [64, 128, 192]
        steps.close()
        _build(nets[1], Noise(700), tmp_path / "stopped", batch=64)
        assert _bytes(tmp_path / "stopped") == _bytes(tmp_path / "cuda")
        for i, (start, stop) in enumerate(((0, 128), (128, 700))):
            _build(nets[1], Noise(700), tmp_path / f"part{i}", batch=64, start=start, stop=stop)
        merge(tmp_path / "part0", tmp_path / "part1", tmp_path / "merged")
        assert _bytes(tmp_path / "merged") == _bytes(tmp_path / "cuda")
    finally:
        torch.backends.cudnn.conv.fp32_precision = precise


def test_reading_ahead_gives_the_same_blocks(net):
    spans = [(0, 8), (8, 64), (64, 70)]
    data = Noise(70, damaged={3, 17, 68})
    found = list(passes.ahead(net, data, spans))
    assert [block.end for block in found] == [8, 64, 70]
    for block, (start, stop) in zip(found, spans, strict=True):
        pixels, images, labels, bad = passes.read(net, data, start, stop)
        assert torch.equal(block.pixels, pixels) and torch.equal(block.images, images)
        assert torch.equal(block.labels, labels) and block.bad == bad
    first = next(passes.ahead(net, data, ((i, i + 8) for i in itertools.count(0, 8))))
    assert first.end == 8, "it does not read to the end before it gives the first"


def test_the_network_is_left_as_it_was(net, tmp_path):
    before = net.fingerprint
    steps = sp.build_patch_index(net, Noise(30), tmp_path, 4, batch=8)
    next(steps)
    for part in net.module.modules():
        assert not part._forward_hooks and not part.training
    steps.close()
    assert sp.network.fingerprint(dict(net.module.state_dict())) == before


def test_never_two_patches_of_one_image_and_fewer_images_than_patches(net, tmp_path):
    index, _ = _build(net, Noise(3), tmp_path)
    found = index.top("stem:0")
    assert sorted(p.image for p in found) == [0, 1, 2] == sorted(p.image for p in index.bottom("stem:0"))
    assert [p.percentile for p in found] == pytest.approx([100, 100 * 2 / 3, 100 / 3])


def test_percentiles(net, tmp_path):
    data = Noise(700)
    index, _ = _build(net, data, tmp_path, batch=64)
    for unit in ("stem:0", "block.1:1", "relu#2:4", "relu#2:2", "head:1"):
        layer, channel = unit.rsplit(":", 1)
        values = np.sort(_maxima(net, Noise(700), layer, 70)[0][:, int(channel)])
        asked = np.quantile(values, np.linspace(0.02, 0.98, 49))
        true = np.array([100 * (values <= v).mean() for v in asked])
        got = np.array([index.percentile(unit, v) for v in asked])
        # A quarter octave is 19 % wide; the narrowest distribution here has a fifth of its mass in one.
        assert np.abs(got - true).max() < 6, unit
        assert (np.diff(got) >= 0).all()
        assert index.percentile(unit, values[-1] * (1 + 1e-4) + 1e-3) == 100
        assert index.percentile(unit, values[0] - 1) == 0
    assert index.percentile("stem:0", float("nan")) != index.percentile("stem:0", float("nan"))


def test_dead_channel_has_its_mass_at_zero(tmp_path):
    conv = nn.Conv2d(3, 2, 1)
    conv.weight.data[0], conv.bias.data[0] = -1, 0.0
    net = sp.Network(nn.Sequential(conv, nn.ReLU()), input_size=(3, 12, 12))
    index, _ = _build(net, Noise(40), tmp_path)
    assert index.dead("1") == (0,) and index.active_share("1:0") == 0
    assert index.percentile("1:0", 0.0) == 100 and index.percentile("1:0", -0.1) == 0
    assert {p.activation for p in index.top("1:0")} == {0.0}
    closest = [p.image for p in index.top("0:0")]
    assert [p.image for p in index.top("1:0")] == closest, "through a rectifier, equal ones are in its input's order"


def test_equal_values_are_in_the_order_of_the_images(tmp_path):
    conv = nn.Conv2d(3, 2, 1)
    conv.weight.data.zero_()
    conv.bias.data[0] = 0.0
    index, _ = _build(sp.Network(nn.Sequential(conv), input_size=(3, 12, 12)), Noise(40), tmp_path)
    for found in (index.top("0:0"), index.bottom("0:0")):
        assert [p.image for p in found] == [0, 1, 2, 3] and {p.activation for p in found} == {0.0}


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
@pytest.mark.parametrize("offset", [0.0, -3.0, 100.0])
def test_histogram_counts_every_value_in_its_cell_in_any_order(scale, offset):
    values = (torch.randn(300) + offset) * scale
    values[::7] = 0
    level, first = grid(values.min()[None], values.max()[None])
    cells = (values.double() / 2.0 ** int(level)).floor().long() - int(first)
    assert cells.min() == 0 and cells.max() < BINS
    if offset == 0:
        assert cells.max() >= BINS // 2 - 1, "the cells are no wider than they must be"
    for order in (torch.arange(300), torch.randperm(300)):
        counting = Counting(Tally(1, 3, 0))
        for part in order.split(37):
            part = part.sort().values
            none = torch.full_like(part, -1)
            counting.add(values[part][:, None], torch.zeros(len(part), 1).int(), part.int(), none, None)
        tally = counting.put_back()
        assert torch.equal(tally.arrays["sketch"][0].long(), torch.bincount(cells, minlength=BINS))
    assert SAMPLES <= 64


def test_histogram_of_a_value_that_is_constant_at_first():
    """The first block's range is empty; the next one's begins below it."""
    counting, first, second = Counting(Tally(1, 3, 0)), torch.full((40, 1), 0.5), torch.linspace(0.4, 0.5, 60)[:, None]
    for start, values in ((0, first), (40, second)):
        numbers = torch.arange(start, start + len(values)).int()
        none = torch.full_like(numbers, -1)
        counting.add(values, torch.zeros_like(values).int(), numbers, none, None)
    a = counting.put_back().arrays
    cells = (torch.cat([first, second])[:, 0].double() / 2.0 ** int(a["sketch_level"])).floor().long()
    counts = torch.bincount(cells - int(a["sketch_first"]), minlength=BINS)
    assert torch.equal(a["sketch"][0].long(), counts)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("bottom", [False, True])
def test_sorting_all_keeps_what_sorting_few_keeps(bottom, device):
    """What a GPU does; many values are equal, some are zero, and at first there are fewer than are kept."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sides = []
    for put, where in ((extremes.put, "cpu"), (extremes.sort_all, device)):
        torch.manual_seed(3)
        kept = (torch.full((50, 9), torch.inf if bottom else -torch.inf), torch.full((50, 9), -1), torch.zeros(50, 9))
        kept = (kept[0].to(where), kept[1].int().to(where), kept[2].int().to(where))
        for images in torch.arange(200).int().split((3, 4, 33, 60, 100)):
            values = (torch.randn(50, len(images)) * 3).round() / 4 + 0.0
            places = torch.randint(0, 900, values.shape).int()
            put(kept, values.to(where), places.to(where), images.to(where), bottom)
        sides.append([array.cpu() for array in kept])
    for a, b in zip(*sides, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("trend", [0.0, 1.0, -1.0])
def test_tally_keeps_what_sorting_everything_keeps(trend):
    """Few values, so that many are equal; zeros of both signs; with a trend each block replaces all that was kept."""
    values = (torch.randn(300, 40) * 2 + trend * torch.arange(300)[:, None] / 20).round() / 2
    values[::3] *= -1.0 if trend == 0 else 1.0
    places, counting = torch.randint(0, 999, values.shape).int(), Counting(Tally(40, 5, 0))
    for part in torch.arange(300).split(64):
        counting.add(values[part], places[part], part.int(), torch.full_like(part, -1), None)
    tally = counting.put_back()
    for side, sign in (("top", -1), ("bottom", 1)):
        order = np.argsort(sign * values.numpy(), axis=0, kind="stable")[:5]
        assert np.array_equal(tally.arrays[f"{side}_image"].T, order)
        for what, of in (("value", values), ("position", places)):
            assert np.array_equal(tally.arrays[f"{side}_{what}"].T, np.take_along_axis(of.numpy(), order, 0))


def test_maps_between_16_and_64_cells_are_searched_like_others():
    for cells in (1, 4, 16, 17, 49, 63, 64, 65):
        maps = torch.randint(-3, 3, (50, cells)).float()
        maps[0] = -torch.inf
        maps[1, cells // 2] = torch.nan
        assert np.array_equal(first_maxima(maps.numpy(), {}), np.argmax(maps.numpy(), 1))


class NormAct(nn.BatchNorm2d):
    """As timm's: a normalisation that also activates, by a function that does not keep the order."""

    def forward(self, x):
        return nn.functional.silu(super().forward(x) - 4)


def test_what_only_looks_like_a_normalisation_is_searched_itself(tmp_path):
    torch.manual_seed(0)
    net = sp.Network(nn.Sequential(nn.Conv2d(3, 6, 3), NormAct(6)), input_size=(3, 12, 12))
    data = Noise(9)
    index, _ = _build(net, data, tmp_path)
    with torch.no_grad():
        maxima = net.module(data.batch(0, 9)[0]).amax((2, 3))
    for channel in range(6):
        found = [patch.activation for patch in index.top(f"1:{channel}")]
        np.testing.assert_allclose(found, maxima[:, channel].sort(descending=True)[0][: len(found)], rtol=1e-5)


def test_sample_is_uniform_and_the_same_for_all_units(net, tmp_path):
    index, _ = _build(net, Noise(400), tmp_path, batch=64)
    a, b = ({p.image for p in index.samples(unit, SAMPLES)} for unit in ("stem:0", "head:1"))
    assert a == b and len(a) == SAMPLES and 100 < np.mean(list(a)) < 300
    activations = [p.activation for p in index.samples("stem:0")]
    assert activations == sorted(activations, reverse=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: i.top("stem:9"), "channels 0 to 4; got 9"),
        (lambda i: i.top("stm:0"), "'stm' is not one of the 7 layers of this index; try stem"),
        (lambda i: i.top("stem:0", 5), "keeps 4 patches a unit; got k = 5"),
        (lambda i: i.top("stem:0", 0), "at least 1 patch"),
        (lambda i: i.check_network(_net(3)), "is of tiny .* not of tiny"),
        (lambda i: i.open_dataset(), "name its folder or zip"),
        (lambda i: i.open_dataset(Noise(20, seed=8)), "is not what was indexed: 20 images of noise"),
    ],
)
def test_questions_that_have_no_answer(net, tmp_path, call, words):
    index, _ = _build(net, Noise(20), tmp_path)
    with pytest.raises(SpError, match=words):
        call(index)


def test_wrong_arguments_and_damaged_files(net, tmp_path):
    for batch in (0, 2049):
        with pytest.raises(SpError, match=f"`batch` must be 1 to 2048 images; got {batch}"):
            _build(net, Noise(5), tmp_path, batch=batch)
    with pytest.raises(SpError, match="`top` must be 1 to 100 images; got 0"):
        _build(net, Noise(5), tmp_path, top=0)
    with pytest.raises(SpError, match="start 5 and stop 5"):
        _build(net, Noise(5), tmp_path, start=5)
    with pytest.raises(SpError, match="'nix' is not one of the"):
        _build(net, Noise(5), tmp_path, layers=["nix"])
    with pytest.raises(SpError, match="no patch index"):
        sp.PatchIndex(tmp_path)
    _build(net, Noise(5), tmp_path)
    next(tmp_path.glob("arrays-*")).write_bytes(b"x" * 100)
    with pytest.raises(SpError, match="damaged"):
        sp.PatchIndex(tmp_path)
    (tmp_path / "index.json").write_text('{"schema": 99}')
    with pytest.raises(SpError, match="has format 99, this program reads 2"):
        sp.PatchIndex(tmp_path)
    with pytest.raises(SpError, match="has format 99"):
        _build(net, Noise(5), tmp_path)
    index, _ = _build(net, Noise(5), tmp_path, resume=False)
    assert index.done == 5, "one of another format can be started over"


def test_textures_are_found_again_without_being_named(net, tmp_path):
    index, _ = _build(net, datasets.Textures(30, seed=5), tmp_path)
    again = index.open_dataset()
    assert again.fingerprint == datasets.Textures(30, seed=5).fingerprint
    assert index.classes == datasets.Textures.classes


# --- pictures of patches --------------------------------------------------------------------------------------------


def test_tiles_are_the_field_and_hatched_outside(net, tmp_path):
    data = Noise(40)
    index, _ = _build(net, data, tmp_path, top=9)
    patches = index.top("stem:0")
    tiles = view.cut(data, patches, net)
    assert tiles.shape == (9, 3, 3, 3) and tiles.dtype == np.uint8
    for tile, patch in zip(tiles, patches, strict=True):
        image = np.asarray(data.picture(patch.image))
        f = patch.field
        for dy in range(3):
            for dx in range(3):
                y, x = f.y0 + dy, f.x0 + dx
                if 0 <= y < 12 and 0 <= x < 12:
                    assert tile[dy, dx].tolist() == image[y, x].tolist()
                else:
                    assert tile[dy, dx].tolist() in ([view.HATCH[0]] * 3, [view.HATCH[1]] * 3)
    assert view.cut(data, patches, net, size=50).shape == (9, 48, 48, 3), "whole pixels: 16 times 3"
    assert view.cut(data, patches, net, size=2).shape == (9, 2, 2, 3)


def test_a_field_larger_than_the_image_shows_the_image_with_a_margin(tmp_path):
    torch.manual_seed(0)
    deep = nn.Sequential(*[nn.Conv2d(3, 3, 5, padding=2) for _ in range(5)])
    net = sp.Network(deep, input_size=(3, 12, 12))
    data = Noise(12)
    index, _ = _build(net, data, tmp_path)
    patches = index.top("4:0")
    assert patches[0].field.height == 21
    tiles = view.cut(data, patches, net)
    assert tiles.shape == (4, 14, 14, 3)
    assert set(np.unique(tiles[0][0])) <= set(view.HATCH)
    assert index.field_size("4") == (21, 21)


def test_guided_backprop_of_the_same_patches_stays_in_the_field(net, tmp_path):
    data = Noise(40)
    index, _ = _build(net, data, tmp_path)
    patches = index.top("relu:1")
    found = view.signals(net, data, patches)
    assert found.shape == (4, 3, 12, 12)
    one = sp.backprop(net, data.batch(patches[2].image, patches[2].image + 1)[0], patches[2].unit)
    torch.testing.assert_close(found[2:3], one, rtol=1e-4, atol=1e-6)
    for signal_of, patch in zip(found, patches, strict=True):
        b = patch.box
        assert signal_of.abs().sum() > 0
        outside = signal_of.clone()
        outside[:, b.y0 : b.y1, b.x0 : b.x1] = 0
        assert not outside.any()
    painted = view.paint(found)
    assert painted.shape == (4, 12, 12, 3) and {0, 255} & set(np.unique(painted))
    assert (view.paint(torch.zeros(1, 3, 2, 2)) == 128).all(), "no signal is all grey"


def test_channels_with_fields_of_their_own(tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 5, padding=2)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x)], 1)

    net = sp.Network(nn.Sequential(Branches()), input_size=(3, 12, 12))
    data = Noise(12)
    index, _ = _build(net, data, tmp_path, layers=["0"])
    sizes = [index.top(f"0:{channel}")[0].field.height for channel in range(5)]
    assert sizes == [1, 1, 5, 5, 5]
    mixed = [index.top("0:0")[0], index.top("0:4")[0]]
    tiles = view.cut(data, mixed, net)
    assert tiles.shape == (2, 5, 5, 3), "the small one lies in the middle of a tile of the large one's size"
    y, x = mixed[0].position
    assert tiles[0, 2, 2].tolist() == np.asarray(data.picture(mixed[0].image))[y, x].tolist()


def test_cache_folder_tells_networks_and_sets_apart(net, tmp_path, monkeypatch):
    monkeypatch.setenv("SP_CACHE", str(tmp_path))
    other = sp.Network(net.clone(), name="other mean", input_size=(3, 12, 12), mean=(0.5,) * 3)
    folders = {store.cache_folder(n, source) for n in (net, other, _net(1)) for source in ("textures", "textures:1")}
    assert len(folders) == 6 and all(folder.is_relative_to(tmp_path) for folder in folders)


# --- verbs ----------------------------------------------------------------------------------------------------------


def test_verbs_index_and_top(tmp_path, capsys, monkeypatch):

    from sp_core import cli
    from sp_core.commands import index as verb

    monkeypatch.setattr(verb, "load", lambda args: sp.Network(nn.Sequential(nn.Conv2d(3, 4, 5)), "tiny", (3, 32, 32)))
    folder, sheet = str(tmp_path / "index"), tmp_path / "sheet.png"
    assert cli.main(["index", "any", "--out", folder, "--count", "12", "--top", "3", "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["images"] == 12 and built["layers"] == [{"name": "0", "channels": 4, "dead": 0}]
    assert cli.main(["top", folder, "0:2", "--out", str(sheet), "--size", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    best = sp.PatchIndex(folder).top("0:2")
    assert [row["image"] for row in said["patches"]] == [patch.image for patch in best]
    assert said["patches"][0]["activation"] == best[0].activation and said["patches"][0]["percentile"] == 100
    assert sp.open_image(sheet).size == (3 * 20 + 2 * 2, 20)
    assert cli.main(["top", folder, "0:2", "--which", "worst", "--k", "2"]) == 0
    assert "worst of 12 images of textures" in capsys.readouterr().out
    assert cli.main(["top", folder, "0:7"]) == 2
    assert "channels 0 to 3; got 7" in capsys.readouterr().err


def test_parquet_holds_every_patch(net, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    index, _ = _build(net, Noise(), tmp_path / "index")
    count = sp.patches.write_parquet(index, tmp_path / "index.parquet")
    rows = parquet.read_table(tmp_path / "index.parquet").to_pylist()
    assert count == len(rows) == sum(index.channels(layer) * (4 + 4 + SAMPLES) for layer in index.layers)
    for unit in ("stem:3", "block.1:0", "head:2"):
        layer, _, channel = unit.partition(":")
        for which in ("best", "worst"):
            mine = [r for r in rows if (r["layer"], r["channel"], r["which"]) == (layer, int(channel), which)]
            for row, patch in zip(mine, index.patches(unit, which), strict=True):
                assert (row["image"], row["label"], row["activation"]) == (patch.image, patch.label, patch.activation)
                place = patch.position or (None, None)
                assert (row["y"], row["x"]) == place
                if patch.position:
                    found = (row["top"], row["bottom"], row["left"], row["right"])
                    assert found == (patch.field.y0, patch.field.y1, patch.field.x0, patch.field.x1)
                else:
                    assert row["top"] is None
    header = parquet.read_schema(tmp_path / "index.parquet").metadata[b"structural_priors"]
    assert json.loads(header)["network"]["fingerprint"] == net.fingerprint
