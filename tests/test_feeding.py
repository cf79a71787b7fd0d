"""How a network is fed: said by hand in the core and on the command line, and what is then no longer a guess."""

import contextlib
import json
import random

import pytest
import torch
from PIL import Image
from torch import nn

import sp_core as sp
from sp_core.checkpoints import by_hand
from sp_core.cli import main
from sp_core.network import IMAGENET_MEAN, IMAGENET_STD


class Tiny(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def net():
    guesses = {"size": "The size is a guess.", "normalisation": "So are mean and std."}
    said = ("Untrained.", *guesses.values())
    return sp.Network(Tiny(), name="tiny", input_size=(3, 16, 16), warnings=said, guesses=guesses)


def test_another_feeding_shares_the_module_and_the_fingerprint_and_leaves_the_network_alone(net):
    assert net.layers[0].output_shape == (6, 14, 14) and net.class_count == 4
    other = net.fed(input_size=(20, 24), mean=0.5, std=(0.1, 0.2, 0.3), classes=list("abcd"), resize=30)
    assert other.module is net.module and other.fingerprint == net.fingerprint
    assert other.input_size == (3, 20, 24) and other.mean == (0.5, 0.5, 0.5) and other.std == (0.1, 0.2, 0.3)
    assert other.classes == ("a", "b", "c", "d") and other.resize == 30
    assert other.layers[0].output_shape == (6, 18, 22) and other.crop(Image.new("RGB", (90, 60))).size == (24, 20)
    assert net.input_size == (3, 16, 16) and net.mean is None and net.classes is None and net.resize == 16
    assert net.layers[0].output_shape == (6, 14, 14)


def test_it_answers_as_a_network_made_that_way(net):
    images = torch.rand(2, 3, 20, 20)
    made = sp.Network(net.module, input_size=(3, 20, 20), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    fed = net.fed(input_size=20, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert torch.equal(sp.predict(fed, images), sp.predict(made, images))
    assert not torch.equal(sp.predict(fed, images), sp.predict(net, images))
    assert torch.equal(sp.predict(fed.fed(mean=None, std=None), images), sp.predict(net, images))


def test_what_a_person_said_is_no_longer_a_guess(net):
    sized, normalised = net.fed(input_size=8), net.fed(std=0.5)
    assert sized.warnings == ("Untrained.", "So are mean and std.") and set(sized.guesses) == {"normalisation"}
    assert normalised.warnings == ("Untrained.", "The size is a guess.") and set(normalised.guesses) == {"size"}
    assert sized.fed(mean=0).warnings == ("Untrained.",)
    assert net.fed(resize=20).warnings == net.warnings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": (1, 16, 16)}, "takes 3 channels, which its weights fix; got 1"),
        ({"input_size": 0}, "from 1 to 4096 pixels.*got 0×0"),
        ({"input_size": (5000, 5)}, "got 5000×5"),
        ({"input_size": (1, 2, 3, 4)}, "got 1×2×3×4"),
        ({"mean": (0.1, 0.2)}, r"`mean` must have one number a channel \(3\); got 2"),
        ({"std": 0}, "`std` must be above 0"),
        ({"mean": float("nan")}, "must be finite"),
        ({"classes": ["a", "b"]}, "2 class names were given, but tiny has 4 outputs"),
        ({"resize": 0}, "`resize` is a side in pixels"),
    ],
)
def test_what_does_not_fit_is_one_sentence(net, change, message):
    with pytest.raises(sp.SpError, match=message):
        net.fed(**change)


def test_a_size_it_cannot_run_on_is_said_when_it_is_run(net):
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 5))
    fixed = sp.Network(module, input_size=(3, 8, 8)).fed(input_size=9)
    for question in (lambda: fixed.layers, lambda: fixed.class_count):
        with pytest.raises(sp.SpError, match="does not run on an input of 3×9×9"):
            question()
    assert fixed.fed(input_size=8).class_count == 5


def test_the_identity_names_everything_an_answer_depends_on(net):
    others = [
        net,
        net.fed(input_size=17),
        net.fed(mean=0.5),
        net.fed(std=0.5),
        net.fed(resize=20),
        net.fed(classes=list("abcd")),
        sp.Network(Tiny(), name="tiny", input_size=(3, 16, 16)),
    ]
    assert len({other.identity for other in others}) == len(others)
    assert net.fed(input_size=17).fed(input_size=16, resize=net.resize).identity == net.identity
    strided = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2))
    plain = nn.Sequential(nn.Conv2d(3, 6, 3))
    plain.load_state_dict(strided.state_dict())
    one, two = (sp.Network(module, input_size=(3, 16, 16)) for module in (strided, plain))
    assert one.fingerprint == two.fingerprint and one.identity != two.identity


def test_a_guessed_feeding_says_what_is_guessed_and_why(tmp_path):
    torch.save(sp.zoo.create("textures-vgg", classes=7).state_dict(), tmp_path / "sure.pth")
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=5).state_dict(), tmp_path / "guessed.pth")
    assert not sp.load(tmp_path / "sure.pth").guesses
    net = sp.load(tmp_path / "guessed.pth")
    assert set(net.guesses) == {"size", "normalisation"} and set(net.guesses.values()) <= set(net.warnings)
    assert "224" in net.guesses["size"] and "does not say" in net.guesses["normalisation"]
    assert not net.fed(input_size=224, mean=0.5, std=0.5).guesses


@pytest.mark.parametrize(("text", "expected"), [("32", (32, 32)), ("32x48", (32, 48)), (" 7 × 9 ", (7, 9))])
def test_sizes_are_written_height_first(text, expected):
    assert by_hand.size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "32x", "-3", "1x2x3", "1e3", "999999", "३२ x"])
def test_a_size_that_is_none_is_said(text):
    with pytest.raises(sp.SpError, match="is written 224 or 32x48"):
        by_hand.size(text)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_normalisation_is_written_as_it_is_read(channels):
    for name in by_hand.usual(channels):
        assert by_hand.written(*by_hand.normalisation(name, channels)) == name
    for text in ("0.5/0.25", ",".join(["0.1"] * (channels - 1) + ["0.2"]) + "/1"):
        assert by_hand.written(*by_hand.normalisation(text, channels)) == text


def test_a_normalisation_that_does_not_fit_is_said():
    with pytest.raises(sp.SpError, match=r"'imagenet' is the normalisation of 3-channel images, but .* takes 1"):
        by_hand.normalisation("imagenet", 1)
    with pytest.raises(sp.SpError, match=r"is one of imagenet, cifar10, .*; got 'cifar'"):
        by_hand.normalisation("cifar", 3)
    with pytest.raises(sp.SpError, match="The mean is one number, or 3 with commas between"):
        by_hand.normalisation("0.1,0.2/1", 3)
    with pytest.raises(sp.SpError, match="std must be above 0"):
        by_hand.normalisation("0/0", 3)
    with pytest.raises(sp.SpError, match="got 'nan'"):
        by_hand.normalisation("nan/1", 3)


@pytest.mark.parametrize(
    "text",
    [
        "tench\ngoldfish\n",
        "\ufefftench\r\ngoldfish",
        "n01440764 tench\nn01443537\tgoldfish\n",
        "{0: 'tench',\n 1: 'goldfish'}",
        '["tench", "goldfish"]',
        '[["n01440764", "tench"], ["n01443537", "goldfish"]]',
        '{"1": "goldfish", "0": "tench"}',
        '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
        '{"tench": 0, "goldfish": 1}',
        '{"id2label": {"0": "tench", "1": "goldfish"}, "other": 3}',
    ],
)
def test_class_names_are_read_as_people_keep_them(text):
    assert by_hand.class_names(text.encode(), "names") == ("tench", "goldfish")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds 0 class names"),
        (b"cat\n\ndog", "3 class names, some of them empty"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b'{"0": 1, "1": 0}', "neither a list of names"),
        (b'{"0": "a", "2": "b"}', "neither a list of names"),
        (b"[1, 2]", "neither a list of names"),
        (b"a\n" * 600_000, "class names are at most 1 MB"),
    ],
)
def test_a_file_that_holds_no_class_names_is_said(data, message):
    with pytest.raises(sp.SpError, match=message):
        by_hand.class_names(data, "names.txt")


def test_nested_json_is_text_or_a_sentence():
    assert by_hand.class_names(b"[" * 50_000, "deep.json") == ("[" * by_hand.MOST_LETTERS,)


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_line_feeds_as_it_is_told(capsys, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"kind {i}" for i in range(18)))
    picture = tmp_path / "picture.png"
    Image.effect_noise((90, 70), 60).convert("RGB").save(picture)
    source = "bundled:textures-resnet"
    status, out, _ = run(
        capsys,
        "describe",
        source,
        "--size",
        "48x80",
        "--mean",
        0.5,
        "--std",
        "0.1,0.2,0.3",
        "--classes",
        names,
        "--json",
    )
    fed = json.loads(out)["input"]
    assert status == 0 and (fed["height"], fed["width"]) == (48, 80)
    assert fed["mean"] == [0.5] * 3 and fed["std"] == [0.1, 0.2, 0.3]
    status, out, _ = run(capsys, "predict", source, picture, "--size", 48, "--classes", names, "--json", "--class", 3)
    answer = json.loads(out)["images"][0]["top"]
    assert status == 0 and answer[0]["name"] == f"kind {answer[0]['class']}"
    net = sp.load(source).fed(input_size=48)
    shares = sp.predict(net, net.view(sp.open_image(picture))[None]).softmax(1)[0]
    assert answer[0]["probability"] == pytest.approx(float(shares.max()), rel=1e-4)
    for bad, message in (
        (("--size", "big"), "is written 224 or 32x48"),
        (("--mean", "1,2"), "The mean is one number"),
        (("--std", "0"), "must be above 0"),
        (("--classes", tmp_path / "none.txt"), "cannot be opened"),
        (("--resize", "-3"), "`resize` is a side in pixels"),
    ):
        status, out, err = run(capsys, "describe", source, *bad)
        assert status == 2 and out == "" and err.count("\n") == 1 and message in err


LETTERS = "019.,;/x×-+e[]{}()\"':=\n\t \ufeff\x00abnNit_"


def junk(dice, depth=0):
    """A value as JSON may hold it."""
    kind = dice.randrange(6 if depth < 3 else 4)
    if kind == 4:
        return [junk(dice, depth + 1) for _ in range(dice.randrange(4))]
    if kind == 5:
        return {dice.choice(["0", "1", "2", "classes", "a"]): junk(dice, depth + 1) for _ in range(dice.randrange(4))}
    return [None, dice.choice([0, 1, 2, 1e400, -1, True]), words(dice, 6), dice.random()][kind]


def words(dice, most=60):
    return "".join(dice.choice(LETTERS) for _ in range(dice.randrange(most)))


def test_any_bytes_are_class_names_or_a_sentence():
    dice, taken = random.Random(0), 0
    for turn in range(6000):
        made = (dice.randbytes(dice.randrange(80)), words(dice).encode(), json.dumps(junk(dice)).encode())[turn % 3]
        try:
            names = by_hand.class_names(made, "the file")
        except sp.SpError as error:
            assert "the file" in str(error)
        else:
            taken += 1
            assert names and all(isinstance(name, str) and name and name.isprintable() for name in names)
    assert 300 < taken < 5700, "both happen"


def test_any_text_of_a_link_is_understood_or_a_sentence():
    dice = random.Random(0)
    for _ in range(6000):
        text, channels = words(dice), dice.randrange(1, 5)
        for read in (by_hand.size, by_hand.architecture, lambda text, n=channels: by_hand.normalisation(text, n)):
            with contextlib.suppress(sp.SpError):
                read(text)
