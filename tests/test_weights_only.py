"""Files of which only the weights are known: what is guessed, what still works, and that every page says so."""

import pytest
import torch
from torch import nn

import sp_core as sp
from pages.ui import nav
from sp_core import filters
from sp_core.checkpoints.loose import loose
from sp_core.errors import NeedsGraph, SpError
from sp_core.network import Network
from sp_core.stem import Stem
from sp_core.weights import curves, factor, matrices, norm_statistics, site_alone, symmetries
from tests.driver import complaints, opened, served

FILES = [page for rows in nav.PAGES.values() for page, *_ in rows]
VIEWS = ["Spectra", "Low rank", "Compress", "Symmetry", "Parametrise", "Covariance", "Batch norm"]


def _net(module: nn.Module | dict, channels: int = 3) -> Network:
    state = module if isinstance(module, dict) else module.state_dict()
    return Network(loose(state, "a file"), name="a file", input_size=(channels, 224, 224), confidence="weights-only")


class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 6, bidirectional=True)
        self.fc = nn.Linear(12, 4)


def _heart() -> nn.Module:
    return nn.Sequential(nn.Conv1d(12, 16, 15), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 9), nn.Linear(16, 5))


def _autoencoder() -> nn.Module:
    return nn.ModuleDict({
        "decoder": nn.Sequential(nn.ConvTranspose2d(32, 16, 4), nn.ConvTranspose2d(16, 3, 4, bias=False)),
        "encoder": nn.Sequential(nn.Conv2d(3, 16, 4), nn.Conv2d(16, 32, 4), nn.Conv2d(32, 32, 3, groups=32)),
    })  # fmt: skip


# --- guesses --------------------------------------------------------------------------------------------------------


def test_the_layer_that_reads_the_image_is_guessed_and_the_reason_said():
    # Sorted by name, as .safetensors files often are, so that the decoder comes first; it ends in [16, 3, 4, 4].
    state = dict(sorted(_autoencoder().state_dict().items()))
    stem = filters.find_stem(_net(state))
    assert stem.layer == "encoder.0"
    assert "three colours" in stem.reason and "first of 2 such" in stem.reason and "guess" in stem.reason
    assert filters.bank(_net(state)).view == "rgb" and filters.bank(_net(state)).reads_image
    grey = filters.find_stem(_net(nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(1, 4, 5)), channels=1))
    assert (grey.layer, "1 input channel, the only" in grey.reason) == ("1", True)
    unknown = filters.find_stem(_net(_heart()))
    assert unknown.layer == "0" and "nothing says" in unknown.reason
    running = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), input_size=(3, 8, 8))
    assert filters.find_stem(running) == Stem("0")


def test_any_layer_of_three_channels_is_shown_in_colour_and_others_are_not():
    net = _net(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 3), nn.Conv2d(1, 8, 3)))
    assert [filters.bank(net, str(i)).view for i in range(4)] == ["rgb", "rgb", "tiles", "grey"]
    assert [filters.bank(net, str(i)).reads_image for i in range(4)] == [True, False, False, False]
    with pytest.raises(SpError, match="'9' is not a convolution; the 4 of a file are 0, 1, 2, 3"):
        filters.bank(net, "9")


def test_lines_and_slices():
    lines = filters.bank(_net(_heart()))
    assert (lines.view, tuple(lines.weight.shape)) == ("lines", (16, 12, 15))
    video = _net(nn.Sequential(nn.Conv3d(3, 4, (5, 7, 7)), nn.Conv3d(4, 6, 3)))
    first, second = filters.bank(video), filters.bank(video, "1")
    assert (first.view, first.depth, tuple(first.weight.shape)) == ("tiles", 5, (4, 15, 7, 7))
    assert first.coloured_slices and not second.coloured_slices
    kernel = video.module.get_submodule("0").weight
    assert torch.equal(first.weight[2, 1 * 5 + 3], kernel[2, 1, 3])
    assert filters.facts(second).norm.tolist() == pytest.approx(
        video.module.get_submodule("1").weight.flatten(1).norm(dim=1).tolist(), rel=1e-5
    )


def test_what_shapes_can_tell_and_what_only_names_can():
    rows = {row.layer: row for row in matrices(_net(_autoencoder()))}
    assert rows["decoder.0"].kind == "ConvTranspose2d" and tuple(rows["decoder.0"].tensor.shape) == (16, 32, 4, 4)
    assert rows["decoder.1"].kind == "Conv2d"  # without a bias nothing tells it from a plain one
    kinds = {row.layer: row.kind for row in matrices(_net(Speech()))}
    assert kinds["embed"] == "Embedding" and kinds["fc"] == "Linear" and kinds["lstm.hh_l0_reverse[o]"] == "LSTM"
    names = ["encoder.embed_tokens", "transformer.wte", "word_embeddings", "member", "embed.proj", "head"]
    state = {f"{name}.weight": torch.randn(4, 3) for name in names}
    said = [row.layer for row in matrices(_net(state)) if row.kind == "Embedding"]
    assert said == ["transformer.wte", "word_embeddings"]


# --- what works without a graph -------------------------------------------------------------------------------------


def test_rebuilding_costs_what_its_weights_say():
    net = _net(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Linear(7, 6)))
    same = sp.weights.site(Network(nn.Sequential(nn.Conv2d(3, 8, 5)), input_size=(3, 9, 9)), "0")
    place = site_alone(net, "0")
    assert place.macs == place.parameters == 8 * 75  # one position of the output
    for row in curves(place):
        other = next(one for one in curves(same) if one.scheme == row.scheme)
        assert row.parameters.tolist() == other.parameters.tolist()
    row = factor(place, "svd", 3)
    values = torch.linalg.svdvals(place.weight.flatten(1))
    assert row.error == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-6)
    assert curves(site_alone(net, "1"))[0].errors[-1] == pytest.approx(0, abs=1e-6)
    with pytest.raises(SpError, match=r"lstm\.hh_l0\[f\] is part of a LSTM; only"):
        site_alone(_net(Speech()), "lstm.hh_l0[f]")
    with pytest.raises(SpError, match="weights of 0 are all zero or not finite"):
        site_alone(_net({"0.weight": torch.zeros(3, 3, 3, 3)}), "0")


def test_statistics_of_normalisations_are_the_numbers_of_the_file():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm1d(5, affine=False))
    module[1].running_mean = torch.tensor([0.0, 1.0, 2.0, 30.0])
    module[1].running_var = torch.tensor([1.0, 4.0, 9.0, 16.0])
    module[1].weight.data = torch.tensor([1.0, 2.0, 0.0, -4.0])
    first, second = norm_statistics(_net(module))
    assert first.layer == "1" and first.summary("mean") == pytest.approx((0, 0.75, 1.5, 9, 30))
    assert first.gain.tolist() == pytest.approx([1, 1, 0, -1], abs=1e-4) and first.off == 1
    assert second.summary("scale") is None and second.channels == 5
    x = torch.randn(2, 4, 3, 3)
    expected = module[1].eval()(x)
    offset = first.shift - first.gain * first.mean
    got = first.gain.float().view(1, -1, 1, 1) * x + offset.float().view(1, -1, 1, 1)
    assert torch.allclose(got, expected, atol=1e-4)
    with pytest.raises(SpError, match="a file has no batch normalisation"):
        norm_statistics(_net(nn.Sequential(nn.Linear(2, 2))))


def test_statistics_come_in_the_order_in_which_layers_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early = nn.BatchNorm2d(4), nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image):
            return self.late(self.conv(self.early(image)))

    rows = norm_statistics(Network(Backwards(), input_size=(3, 8, 8)))
    assert [row.layer for row in rows] == ["early", "late"]


def test_symmetries_and_spectra_are_those_of_the_same_weights_in_a_network():
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3))
    running, alone = Network(module, input_size=(3, 8, 8)), _net(module)
    assert symmetries(running)[:5] == symmetries(alone)[:5]
    for name, values in sp.singular_values(running).items():
        assert torch.equal(values, sp.singular_values(alone)[name])


def test_a_forward_pass_is_refused_by_name():
    net = _net(_autoencoder())
    image = torch.rand(1, 3, 32, 32)
    for question in (
        lambda: sp.predict(net, image),
        lambda: filters.response(net, "encoder.0", 0, image),
        lambda: sp.receptive_fields(net),
    ):
        with pytest.raises(NeedsGraph, match="Of a file only the weights are known"):
            question()


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    torch.save(Speech().state_dict(), folder / "speech.pth")
    torch.save(_heart().state_dict(), folder / "heart.pth")
    torch.save(_autoencoder().state_dict(), folder / "autoencoder.pth")
    torch.save(nn.GRU(3, 4).state_dict(), folder / "gru.pth")
    torch.save(nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)).state_dict(), folder / "video.pth")
    odd = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Linear(8, 3))
    (folder / "run").mkdir()
    for epoch in (1, 2, 10):
        state = {f"module.{name}": tensor * epoch for name, tensor in odd.state_dict().items()}
        torch.save({"state_dict": state, "epoch": epoch}, folder / "run" / f"odd_epoch{epoch}.pth")
    with served(folder):
        yield


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("page", FILES)
@pytest.mark.parametrize("name", ["speech", "autoencoder"])
def test_every_page_works_or_says_what_it_needs(page, name):
    app = opened(page, net=f"path:{name}.pth")
    assert not complaints(app)
    if page in nav.WITHOUT_GRAPH:
        assert not any("no image can be run" in box.value for box in app.info)
    else:
        assert any("only the weights are known" in box.value for box in app.info), [box.value for box in app.info]


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["speech", "heart", "autoencoder", "gru", "video"])
def test_every_view_of_the_weights_opens(name, view):
    app = opened("weights.py", net=f"path:{name}.pth", view=view)
    assert not complaints(app)
    assert any("cannot be told from a plain one" in caption.value for caption in app.caption)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("name", ["heart", "autoencoder", "video"])
def test_filters_open_and_say_what_is_a_guess(name):
    app = opened("filters.py", net=f"path:{name}.pth")
    assert not complaints(app)
    assert any(caption.value.startswith(":material/help: Layer") for caption in app.caption)
    for layer in app.selectbox(key="layer").options:
        app.selectbox(key="layer").set_value(layer).run()
        assert not complaints(app)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("page", "state"),
    [("filters.py", {"layer": "3", "rows": 0}), ("weights.py", {"layer": "3"}), ("weights.py", {"view": "Symmetry"})],
)
def test_the_slider_changes_the_network_and_nothing_else(page, state):
    app = opened(page, net="path:run/odd_epoch2.pth", **state)
    assert not complaints(app)
    slider = app.select_slider(key="epoch")
    assert (slider.label, slider.options, slider.value) == ("Epoch", ["1", "2", "10"], "2")
    slider.set_value("10").run()
    assert not complaints(app)
    assert app.session_state["net"] == "path:run/odd_epoch10.pth"
    assert app.select_slider(key="epoch").value == "10"
    for key, value in state.items():
        if key in {"layer", "view"}:
            assert app.session_state[key] == value


@pytest.mark.usefixtures("_folder")
def test_a_file_of_no_run_has_no_slider():
    for page in ("filters.py", "weights.py"):
        app = opened(page, net="path:autoencoder.pth")
        assert not app.select_slider


@pytest.mark.usefixtures("_folder")
def test_uploads_of_one_session_are_a_run_too(tmp_path):
    torch.manual_seed(0)
    files = []
    for epoch in (1, 2, 3):
        path = tmp_path / f"net_{epoch}.pth"
        torch.save(sp.zoo.create("textures-vgg", classes=epoch + 3).state_dict(), path)
        files.append((path.name, path.read_bytes(), "application/octet-stream"))
    app = opened("filters.py")
    app.sidebar.file_uploader[0].set_value(files).run()
    assert not complaints(app)
    assert app.session_state["net"].startswith("file:")
    assert app.select_slider(key="epoch").options == ["1", "2", "3"]


# --- real files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "stem", "view"),
    [
        ("espnetv2_pascal_seg.pth", "base_net.level1.conv", "rgb"),
        ("face_slim_Final.pth", "conv1.0", "rgb"),
        ("gasoonjia_cifar_dp_legacy.pth", "conv1", "rgb"),
        ("pytorx_mnist_model_best.pth.tar", "conv1", "grey"),
    ],
)
def test_first_layers_of_real_files(real_data, file, stem, view):
    net = sp.load(real_data / "checkpoints" / file, device="cpu")
    assert not net.has_graph
    bank = filters.bank(net)
    assert (bank.layer, bank.view) == (stem, view)
    assert filters.facts(bank).norm.isfinite().all()
    assert all(values.isfinite().all() for values in sp.singular_values(net).values())
