"""Figures of filters and weights: the pixels and points are those of the numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sp_core.figures import filters as filter_figures
from sp_core.figures import normalisation
from sp_core.figures import weights as figures
from sp_core.figures.colour import diverging
from sp_core.filters import FilterBank, facts
from sp_core.network import Network
from sp_core.weights import NormStatistics, curve, factor, identity_shares, random_band, read_spectra, site, symmetries


@pytest.fixture
def net() -> Network:
    layers = (nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(6 * 36, 4))
    return Network(nn.Sequential(*layers), name="tiny", input_size=(3, 12, 12))


def _bank(weight: torch.Tensor, view: str) -> FilterBank:
    return FilterBank("conv", "Conv2d", weight.float(), 1, view, view == "rgb")


def test_sheet_follows_the_order():
    bank = _bank(torch.randn(6, 3, 5, 5), "rgb")
    order = torch.tensor([4, 0, 5, 1, 2, 3])
    plain, sorted_ = filter_figures.sheet(bank), filter_figures.sheet(bank, order=order)
    for place, number in enumerate(order.tolist()):
        assert np.array_equal(np.asarray(sorted_.cut(place)), np.asarray(plain.cut(number)))


def test_kernel_sheet_is_out_by_in_and_signed_on_one_scale():
    weight = torch.randn(70, 5, 3, 3)
    sheet = filter_figures.kernel_sheet(_bank(weight, "tiles"), first_out=6, first_in=1)
    assert (sheet.columns, sheet.count) == (4, 24 * 4)
    expected = diverging(weight[6 + 2, 1 + 3].numpy(), float(weight.abs().max()))
    assert np.array_equal(np.asarray(sheet.cut(2 * 4 + 3)), expected)


def test_overlay_is_the_picture_where_the_response_is_zero():
    from PIL import Image

    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    response = torch.zeros(2, 2)
    response[0, 0] = -3.0
    shown = np.asarray(filter_figures.overlay(picture, response))
    grey = np.asarray(picture.convert("L"))[0, 0]
    assert (shown[4:, 4:] == grey).all() and shown[0, 0, 2] > shown[0, 0, 0]  # negative is blue
    assert (shown[:4, :4] == shown[0, 0]).all()


def test_scatter_leaves_out_blobs_and_dead_filters():
    from sp_core.gabor import gabor

    wave, blob = gabor(9, 9, orientation=40, frequency=0.2), gabor(9, 9, orientation=0, frequency=0.0)
    patterns = torch.stack([wave, blob, 1e-4 * wave])
    row = facts(_bank(patterns[:, None].repeat(1, 3, 1, 1), "rgb"))
    figure = filter_figures.orientation_and_frequency(row, chosen=0)
    assert len(figure.data[0].x) == 1 and figure.data[0].x[0] == pytest.approx(40, abs=0.5)
    assert len(figure.data) == 2 and len(filter_figures.orientation_and_frequency(row, chosen=2).data) == 1


def test_lines_are_the_weights_and_follow_the_order():
    bank = FilterBank("conv", "Conv1d", torch.randn(5, 2, 7), 1, "lines", True)
    row = facts(bank)
    figure = filter_figures.lines(bank, row, torch.tensor([3, 0, 4, 1, 2]), chosen=4)
    thin, thick = figure.data
    assert len(thin.x) == 5 * 2 * 8 and len(thick.x) == 5 * 8  # seven points and a break
    top = float(bank.weight.abs().max())
    assert np.allclose(thin.y[:7], 0.42 * bank.weight[3, 0].numpy() / top)  # the first cell, around 0
    assert np.allclose(thick.y[:7], 0.42 * (row.pattern[3, 0] / row.pattern.abs().max()).numpy())
    assert set(thin.text[:16]) == {"filter 3"} and thick.text[-1] == "filter 2"
    assert figure.layout.shapes[0].x0 == pytest.approx(2 - 0.48)  # filter 4 is third
    assert filter_figures.lines_height(bank) >= 180


def test_taps_are_those_of_the_strongest_inputs():
    weight = torch.randn(2, 20, 5) * torch.arange(20).view(1, 20, 1)
    figure = filter_figures.taps(FilterBank("conv", "Conv1d", weight, 1, "lines", True), 1, most=3)
    strongest = weight[1].norm(dim=1).topk(3).indices.sort().values.tolist()
    assert [line.name for line in figure.data] == [f"input {i}" for i in strongest]
    assert np.allclose(figure.data[0].y, weight[1, strongest[0]].numpy())


def test_frequencies_of_lines():
    along = torch.arange(32, dtype=torch.float32)
    waves = torch.stack([(2 * math.pi * f * along).cos() * (-((along - 16) ** 2) / 60).exp() for f in (0.1, 0.25, 0.4)])
    row = facts(FilterBank("conv", "Conv1d", waves[:, None], 1, "lines", True))
    figure = filter_figures.frequency_and_norm(row, chosen=1)
    assert figure.data[0].x == pytest.approx([0.1, 0.25, 0.4], abs=0.01)
    assert figure.data[1].x[0] == pytest.approx(0.25, abs=0.01)


def test_slices_of_a_conv3d_are_in_colour_where_they_read_frames():
    kernels = torch.randn(4, 3, 2, 5, 5)
    frames = FilterBank("conv", "Conv3d", kernels.flatten(1, 2), 1, "tiles", True, depth=2)
    sheet = filter_figures.kernel_sheet(frames)
    assert (sheet.columns, sheet.count, filter_figures.columns(frames)) == (2, 8, 2)
    expected = (128 + 127 * kernels[2, :, 1] / kernels.abs().max()).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.array_equal(np.asarray(sheet.cut(2 * 2 + 1)), expected)
    own = np.asarray(filter_figures.kernel_sheet(frames, common=False).image)[..., :3]
    assert own.max() == 255
    deeper = FilterBank("conv", "Conv3d", torch.randn(4, 6, 5, 5), 1, "tiles", False, depth=2)
    assert filter_figures.kernel_sheet(deeper).columns == filter_figures.columns(deeper) == 6
    assert "2 slices" in filter_figures.column(deeper) and filter_figures.column(frames) == (
        "a slice of its kernel, earliest first"
    )


def test_batch_norm_figure_holds_the_five_numbers_of_every_layer():
    rows = [
        NormStatistics("a", torch.arange(5.0), torch.tensor([0.0, 1, 2, 3, 4]), torch.ones(5), None, 1e-5),
        NormStatistics("b", None, None, torch.tensor([2.0, 4.0]), torch.zeros(2), 1e-5),
    ]
    figure = normalisation.distributions(rows, chosen=0)
    mean_range, mean_half, mean_median = figure.data[:3]
    assert list(mean_range.y) == [0, 4, None] and list(mean_half.y) == [1, 3, None] and list(mean_median.y) == [2]
    assert figure.data[3].y[0] == 1e-8  # a variance of 0 on a logarithmic axis
    assert list(figure.data[8].x) == [0, 1] and list(figure.data[8].y) == [1, 3]
    assert len(figure.layout.shapes) == 8  # in each panel what a fresh layer holds, and the chosen layer
    table = normalisation.table(rows)
    assert table[0]["median μ"] == 2 and table[0]["median β"] is None and table[1]["median gain"] is None
    points = normalisation.channels(rows[0]).data[0]
    assert points.x == pytest.approx((rows[0].variance + 1e-5).rsqrt().numpy())
    assert points.y == pytest.approx(-(rows[0].mean * (rows[0].variance + 1e-5).rsqrt()).numpy())
    assert len(normalisation.channels(rows[1]).data) == 0


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 7), (4, 4, 3, 3), (4, 4, 2, 3, 3)])
def test_parts_of_any_square_weight(shape):
    weight = torch.randn(shape)
    tap, square = {
        2: ((0, 0), lambda w: w),
        3: ((0, 2), lambda w: w[:, :, 2]),
        4: ((1, 2), lambda w: w[:, :, 1, 2]),
        5: ((1, 2), lambda w: w[:, :, 1, 1, 2]),
    }[len(shape)]
    square = square(weight)
    assert torch.equal(figures.at_tap(weight, tap), square)
    shown = dict(figures.parts(weight, "channels", tap))
    limit = float(square.abs().max())
    assert np.array_equal(np.asarray(shown["W"]), diverging(square.double().numpy(), limit))


def test_spectra_figure_holds_every_layer_and_the_band(net):
    rows = read_spectra(net)
    figure = figures.spectra(rows, 1, random_band(rows[1].rows, rows[1].columns))
    names = [trace.name for trace in figure.data]
    assert names == ["0", "4", "random, same norm", "random, mean", "2"]
    assert figure.data[-1].y[0] == 1.0
    assert len(figures.strip(rows).data[0].y) == 3
    table = figures.rank_table(rows)
    assert table[0]["matrix"] == "6×75" and table[0]["full rank"] == 6


def test_error_figure_marks_the_chosen_rank(net):
    place = site(net, "2")
    curves = [curve(place, name) for name in ("svd", "separable", "basis", "tucker")]
    row = factor(place, "separable", 4)
    for axis, expected in (
        ("rank", 4),
        ("parameters", row.parameters / place.parameters),
        ("MACs", row.macs / place.macs),
    ):
        figure = figures.errors(place, curves, row, axis)
        assert figure.data[4].x[0] == pytest.approx(expected)
        line = figure.data[1]
        assert line.x[3] == pytest.approx(expected) and line.y[3] == pytest.approx(row.error)
    for scheme in ("svd", "separable", "basis", "tucker"):
        assert figures.building_blocks(factor(place, scheme, 2), place).count == 2
        assert next(name for name, _ in figures.before_and_after(net, place, factor(place, scheme, 2))) == "as trained"
    assert figures.building_blocks(factor(site(net, "0"), "svd", 3), site(net, "0")).tile == (5, 5)


def test_symmetry_figures(net):
    rows = symmetries(net)
    table = figures.symmetry_table(rows).data[0]
    assert table.z.shape == (3, 7) and math.isnan(table.z[0, 0])
    bars = figures.symmetry_bars([row for row in rows if row.kind == "left–right"])
    assert list(bars.data[0].x) == ["0", "2"]
    assert list(figures.identity_bars(identity_shares(net)).data[0].x) == ["0", "2"]
    assert len(figures.records(rows)) == len(rows) and figures.records(rows)[0]["layer"] == "0"


def test_matrix_is_exact_up_to_256_and_block_means_beyond():
    small = torch.randn(256, 40)
    assert np.array_equal(np.asarray(figures.matrix(small)), diverging(small.double().numpy()))
    large = torch.randn(513, 4)
    shown = figures.matrix(large, limit=2.0)
    assert shown.size == (4, 171)
    expected = diverging(large.double().view(171, 3, 4).mean(1).numpy(), 2.0)
    assert np.array_equal(np.asarray(shown), expected)


def test_parts_add_up(net):
    weight = net.module[2].weight
    names = [name for name, _ in figures.parts(weight, "channels", (1, 1))]
    assert names == ["W", "symmetric part", "the rest"]
    whole = np.asarray(figures.parts(weight, "channels", (1, 1))[0][1])
    limit = float(weight[:, :, 1, 1].abs().max())
    assert np.array_equal(whole, diverging(weight[:, :, 1, 1].double().numpy(), limit))
    assert len(figures.parts(weight, "all eight")) == 3
