"""What is published: every record has a source, its exact counts come out, and what is wrong is refused."""

import json
from collections import Counter

import pytest

from sp_core import zoo
from sp_core.architecture import on_meta
from sp_core.counts import complexity
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations import free_parameters
from sp_core.published import DATA, FOLDER, Record, checked, corrections, corrections_of, ilsvrc, records

LIGHT = ("nin", "vgg11", "alexnet", "wrn-16", "mobilenet", "shufflenet", "diracnet", "resnet18", "resnet50", "lenet5")
COUNTED = [(one, what) for one in records() for what in one.exact]


def marked(one):
    """Deep networks cost seconds each; the others are enough to notice a wrong table."""
    heavy = not one[0].network.startswith(LIGHT)
    return pytest.param(*one, marks=[pytest.mark.slow] if heavy else [])


_KEPT: dict = {}


def counts_of(one):
    """Parameters and operations of a record's network by its convention."""
    key = (one.network, json.dumps(dict(one.options)), one.size, one.convention, one.kept)
    if key not in _KEPT:
        net = on_meta(one.network, one.options)
        if one.size:
            net = Network(net.module, name=one.network, input_size=one.size)
        found = complexity(net, one.convention)
        parameters = free_parameters(net.module) if one.kept else found.parameters
        _KEPT[key] = {"parameters": parameters, "macs": found.macs}
    return _KEPT[key]


@pytest.mark.parametrize(("one", "what"), [marked(pair) for pair in COUNTED], ids=lambda x: getattr(x, "name", x))
def test_a_count_that_is_called_exact_comes_out(one, what):
    assert counts_of(one)[what] == getattr(one, what), one.source


def test_the_records_cover_the_lectures():
    families = Counter((one.lecture, one.data) for one in records())
    assert len(records()) > 110 and {one.data for one in records()} == set(DATA)
    assert min(families[lecture, "ImageNet"] for lecture in ("Ioannou", "Huang", "Zagoruyko")) > 20
    assert all(one.source and one.protocol and one.family for one in records())
    titles = Counter((one.name, one.data, one.family) for one in records())
    assert max(titles.values()) == 1


def test_every_named_architecture_is_in_the_zoo():
    names = {one.network for one in records()} | {name for row in corrections() for name in row.networks}
    names |= {row.network for row in (*ilsvrc().winners, *ilsvrc().development)}
    for name in names - {""}:
        zoo.entry(name)
    assert len(names) > 70


def test_a_count_that_is_not_exact_says_so_or_has_no_architecture():
    for one in records():
        left = [what for what in ("parameters", "macs") if getattr(one, what) is not None and what not in one.exact]
        assert not left or not one.network or one.note, f"{one.name}: {left}"


@pytest.mark.parametrize("row", [row for row in corrections() if row.counted], ids=lambda row: row.says)
def test_what_is_right_is_what_is_counted(row):
    counted = dict(row.counted)
    found = complexity(on_meta(counted["network"]), counted["convention"])
    layer = found.per_layer[counted["layer"]] if "layer" in counted else found
    for what in ("parameters", "macs"):
        if what in counted:
            assert getattr(layer, what) == counted[what]


def test_the_right_number_of_a_correction_is_not_the_one_on_the_slide():
    for row in corrections():
        assert row.where and row.why and row.right != row.says and row.networks
    assert any("2,416" in row.right for row in corrections_of("lenet5"))
    assert "11,523,368" in corrections_of("diracnet18")[0].right
    assert not corrections_of("unet")


def test_ilsvrc_is_that_of_the_slide():
    found = ilsvrc()
    assert [row.top5_error for row in found.winners] == [28.2, 25.8, 16.4, 11.7, 7.3, 6.7, 3.6, 3.0, 2.3]
    assert [row.layers for row in found.winners] == [None, None, 8, 8, 19, 22, 152, 152, 152]
    assert found.human == 5.1 and found.human_source and all(row.source for row in found.winners)


GOOD = {"name": "n", "data": "ImageNet", "lecture": "Huang", "family": "f", "source": "s", "protocol": "p"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": " ", "top1_error": 3.0}, "has no source"),
        ({"data": "MNIST", "top1_error": 3.0}, "one of: ImageNet"),
        ({}, "needs an error"),
        ({"top1_error": 0.0}, "between 0 and 100"),
        ({"top1_error": 3.0, "convention": "mine"}, "counted by 'mine'"),
        ({"top1_error": 3.0, "exact": ("macs",)}, "nothing stands behind"),
        ({"top1_error": 3.0, "counted": ("macs",), "network": "lenet5"}, "nothing stands behind"),
    ],
)
def test_a_record_that_is_wrong_is_refused(change, words):
    with pytest.raises(SpError, match=words):
        checked(Record(**(GOOD | change)))


def test_the_files_hold_their_sources():
    for file in ("errors.json", "ilsvrc.json", "corrections.json", "zoo.json"):
        assert json.loads((FOLDER / file).read_text("utf-8"))["about"]
