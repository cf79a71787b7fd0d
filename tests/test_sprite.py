"""Sprites and colour maps, pixel by pixel."""

import numpy as np
import pytest

from sp_core.figures.colour import diverging, sequential
from sp_core.figures.sprite import make_sprite


@pytest.mark.parametrize(("count", "columns", "gap"), [(1, None, 1), (6, 3, 1), (7, 3, 2), (64, None, 0), (5, 8, 1)])
def test_every_tile_is_where_its_box_says(count, columns, gap):
    tiles = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    sheet = make_sprite(tiles, columns, gap)
    pixels = np.asarray(sheet.image)
    for index in range(count):
        left, top, right, bottom = sheet.box(index)
        np.testing.assert_array_equal(pixels[top:bottom, left:right, :3], tiles[index])
        assert (pixels[top:bottom, left:right, 3] == 255).all()
    opaque = (pixels[..., 3] == 255).sum()
    assert opaque == count * 4 * 5, "the gaps, and nothing else, are transparent"


def test_zero_is_neutral_and_signs_are_symmetric():
    colours = diverging(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), limit=2)
    assert colours[2].tolist() == [247, 247, 247]
    assert colours[0][2] > colours[0][0] and colours[4][0] > colours[4][2], "blue is negative, red is positive"
    assert (diverging(np.zeros((3, 3))) == 247).all()


def test_what_is_not_a_number_is_grey_and_what_is_beyond_keeps_the_end():
    colours = diverging(np.array([np.nan, np.inf, -np.inf, 5.0, 1.0]), limit=1)
    assert colours[0].tolist() == [128, 128, 128]
    assert colours[1].tolist() == colours[3].tolist() == colours[4].tolist()
    assert sequential(np.array([3.0, 3.0, np.nan])).tolist() == [[68, 1, 84], [68, 1, 84], [128, 128, 128]]


def test_brightness_grows_with_the_value():
    grey = sequential(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey) > 0).all()
