"""Figures of filters and weights: the pixels and points are those of the numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sp_core.figures import filters as filter_figures
from sp_core.figures import weights as figures
from sp_core.figures.colour import diverging
from sp_core.filters import FilterBank, facts
from sp_core.network import Network
from sp_core.weights import curve, factor, identity_shares, random_band, read_spectra, site, symmetries


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


def test_lines_and_taps():
    bank = FilterBank("conv", "Conv1d", torch.randn(5, 2, 7), 1, "lines", True)
    assert len(filter_figures.lines(bank).data[0].x) == 5 * 8  # seven points and a break
    assert [len(line.y) for line in filter_figures.taps(bank, 3).data] == [7, 7]


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
    forms = dict(figures.forms(figures.at_tap(weight, (1, 1))))
    made = np.asarray(forms["triangular: Ŵ"])
    assert np.array_equal(made, made.transpose(1, 0, 2))
