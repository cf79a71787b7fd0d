import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.faithfulness import (
    BATCH,
    insertion_deletion,
    insertion_deletion_steps,
    randomisation,
    randomise,
    rank_correlation,
)
from sp_core.methods import blurred


class Sees(nn.Module):
    """A logit that depends on the left half of the image only, and one constant."""

    def forward(self, x):
        return torch.stack([8 * x[:, :, :, : x.shape[3] // 2].mean((1, 2, 3)) - 4, torch.zeros(len(x))], 1)


IMAGE = torch.ones(1, 3, 8, 8)
NET = sp.Network(Sees(), name="sees", input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


def ranking_of(half):
    ranking = torch.zeros(8, 8)
    ranking[:, half] = 1
    return ranking


def test_deletion_by_a_slow_loop():
    ranking = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    curves = insertion_deletion(NET, IMAGE, 0, ranking, steps=16)
    order = sorted(range(64), key=lambda i: -float(ranking.flatten()[i]))
    wanted = []
    for step in range(17):
        image = IMAGE.clone()
        for pixel in order[: step * 4]:
            image[0, :, pixel // 8, pixel % 8] = 0.0
        wanted.append(float(sp.predict(NET, image).softmax(1)[0, 0]))
    assert curves.deletion.tolist() == pytest.approx(wanted, abs=1e-6)
    assert curves.fraction.tolist() == [i / 16 for i in range(17)]
    area = sum((wanted[i] + wanted[i + 1]) / 2 / 16 for i in range(16))
    assert curves.deletion_score == pytest.approx(area, abs=1e-6)
    assert curves.unit == "probability"


def test_good_maps_beat_chance_and_bad_ones_do_not():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.1
    image[:, :, :, :4] += 0.8
    good = insertion_deletion(NET, image, 0, ranking_of(slice(0, 4)))
    bad = insertion_deletion(NET, image, 0, ranking_of(slice(4, 8)))
    assert good.deletion_score < good.random_deletion_score < bad.deletion_score
    assert good.insertion_score > good.random_insertion_score > bad.insertion_score
    for curve in (good.insertion, bad.insertion, good.random_insertion):
        assert float(curve[-1]) == pytest.approx(float(sp.predict(NET, image).softmax(1)[0, 0]), abs=1e-6)


def small(seed=3):
    torch.manual_seed(seed)
    module = nn.Sequential(
        *[nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()],
        *[nn.Flatten(), nn.Linear(8 * 36, 5)],
    )
    return sp.Network(module, name="small", input_size=(3, 8, 8))


PICTURE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def test_units_are_followed_at_the_position_found_on_the_image():
    net = small()
    curves = insertion_deletion(net, PICTURE, "3:1", torch.rand(8, 8), steps=10)
    assert curves.unit == "share of the activation"
    assert float(curves.insertion[-1]) == pytest.approx(1.0)
    assert float(curves.deletion[0]) == pytest.approx(1.0)


def test_progress_and_errors():
    steps = list(insertion_deletion_steps(NET, IMAGE, 0, torch.rand(8, 8), steps=20))
    assert len(steps) == 4 * -(-21 // BATCH) + 1
    assert steps[-1].curves is not None
    assert all(step.curves is None for step in steps[:-1])
    with pytest.raises(sp.SpError, match="one number a pixel, 8×8"):
        insertion_deletion(NET, IMAGE, 0, torch.rand(4, 4))
    with pytest.raises(sp.SpError, match="not finite"):
        insertion_deletion(NET, IMAGE, 0, torch.full((8, 8), float("nan")))
    with pytest.raises(sp.SpError, match=r"`steps` must be from 2 .*; got 1"):
        insertion_deletion(NET, IMAGE, 0, torch.rand(8, 8), steps=1)
    net = small()
    with torch.no_grad():
        net.module[3].bias.fill_(-100)
    with pytest.raises(sp.SpError, match=r"3:1@\d,\d is -\d.* need a positive value"):
        insertion_deletion(net, PICTURE, "3:1", torch.rand(8, 8))


def test_blur_keeps_constants_and_mass_and_is_a_gaussian():
    assert torch.allclose(blurred(torch.full((1, 3, 9, 9), 0.3), 2.0), torch.full((1, 3, 9, 9), 0.3))
    point = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    out = blurred(point, 3.0)
    assert float(out.sum()) == pytest.approx(2.0)
    assert float(out[0, 0, 20, 23] / out[0, 0, 20, 20]) == pytest.approx(2.718281828**-0.5)
    assert torch.allclose(out, out.transpose(2, 3))


def test_randomise_shuffles_a_copy():
    net = small()
    before = net.fingerprint
    last, count = randomise(net, "last", seed=1)
    assert count == 2
    every, all_count = randomise(net, "all", seed=1)
    assert all_count == 8
    assert sp.Network(net.module, input_size=(3, 8, 8)).fingerprint == before
    for name, tensor in net.module.named_parameters():
        other, second = every.module.get_parameter(name), last.module.get_parameter(name)
        assert torch.equal(other.flatten().sort().values, tensor.flatten().sort().values)
        if tensor.unique().numel() > 1:
            assert not torch.equal(other, tensor)
        assert torch.equal(second, tensor) != name.startswith("6.")
    assert randomise(net, "all", 1)[0].fingerprint == every.fingerprint != randomise(net, "all", 2)[0].fingerprint
    middle, _ = randomise(net, "last", before="4")
    changed = [n for n, p in net.module.named_parameters() if not torch.equal(p, middle.module.get_parameter(n))]
    assert changed == ["3.weight", "3.bias"]
    with pytest.raises(sp.SpError, match="`which` must be 'last' or 'all'; got 'some'"):
        randomise(net, "some")
    with pytest.raises(sp.SpError, match="no weights before the target"):
        randomise(NET)


def test_randomise_sees_parametrised_weights():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    torch.nn.utils.parametrizations.weight_norm(module[0])
    net = sp.Network(module, input_size=(3, 8, 8))
    assert randomise(net, "all")[1] == len(list(net.module.parameters())) == 5


def test_randomisation_compares_the_same_class():
    net = small()
    original = sp.attribute(net, PICTURE, 1, "gradient")
    for which in ("last", "all"):
        found = randomisation(net, PICTURE, 1, original, which)
        assert found.attribution.targets == original.targets
        assert found.attribution.map.shape == original.map.shape
        assert not torch.equal(found.attribution.map, original.map)
        assert -1 <= found.correlation < 0.99
    unit = sp.attribute(net, PICTURE, "3:1", "gradient")
    assert randomisation(net, PICTURE, "3:1", unit, "all").attribution.targets == unit.targets


def test_a_method_that_ignores_the_weights_is_caught():
    class Edges(nn.Module):  # its gradient is the image itself, whatever its weight
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2, 3))

        def forward(self, x):
            return (x**2).sum((1, 2, 3))[:, None] * (self.weight.sum() / self.weight.sum().detach()) + self.weight[:, 0]

    net = sp.Network(nn.Sequential(Edges()), input_size=(3, 8, 8))
    found = randomisation(net, PICTURE, 0, sp.attribute(net, PICTURE, 0, "gradient"), "all")
    assert found.correlation == pytest.approx(1.0)


def test_rank_correlation_by_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 6, (40,), generator=generator).double()
    b = torch.randint(0, 6, (40,), generator=generator).double() + a

    def ranks(values):
        values = values.tolist()
        return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]

    x, y = ranks(a), ranks(b)
    mx, my = sum(x) / 40, sum(y) / 40
    top = sum((i - mx) * (j - my) for i, j in zip(x, y, strict=True))
    wanted = top / (sum((i - mx) ** 2 for i in x) * sum((j - my) ** 2 for j in y)) ** 0.5
    assert rank_correlation(a, b) == pytest.approx(wanted, abs=1e-12)
    assert rank_correlation(a, a**3) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(a, torch.ones(40)) != rank_correlation(a, torch.ones(40))
    assert rank_correlation(a, torch.full((40,), float("nan"))) != 0
