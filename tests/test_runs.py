"""Which files are one training run: names as programs write them, and what is followed over a run."""

import json
import random

import pytest
import torch

import sp_core as sp
from sp_core.checkpoints.runs import find_runs, run_of
from sp_core.checkpoints.snapshots import checkpoint_files, training_run
from sp_core.cli import main
from sp_core.errors import SpError
from sp_core.figures import epochs as figures
from sp_core.weights import effective_rank, find, over_epochs, stable_rank
from sp_core.weights.symmetry import symmetry

RUNS = [  # files in the order of training, their labels, and what is counted
    (["epoch=0-step=9.ckpt", "epoch=2-step=30.ckpt", "epoch=10-step=99.ckpt", "last.ckpt"], "0 2 10 last", "epoch"),
    (["checkpoint_002.pth", "checkpoint_010.pth", "model_best.pth.tar"], "2 10 best", "checkpoint"),
    (["init.pt", "net_e1.pt", "net_e12.pt"], "init 1 12", "epoch"),
    (["model_3.pt", "model_12.pt"], "3 12", "checkpoint"),
    (["1.pth", "2.pth", "10.pth"], "1 2 10", "checkpoint"),
    (["ckpt-000007.safetensors", "ckpt-000123.safetensors"], "7 123", "checkpoint"),
    (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], "500 1000", "checkpoint"),
    (["init.pt", "epoch_1.pt", "epoch_2.pt", "best.pt", "final.pt"], "init 1 2 best final", "epoch"),
    (["epoch_11.pth", "epoch_12.pth", "best_epoch_12.pth"], "11 12 best-12", "epoch"),
    (["epoch=3-val_loss=0.21.ckpt", "epoch=4-val_loss=0.20.ckpt"], "3 4", "epoch"),
    (["weights.01-0.93.pt", "weights.02-0.95.pt"], "1 2", "checkpoint"),
    (["iter_1000.pth", "iter_20000.pth", "latest.pth"], "1000 20000 latest", "step"),
    (["epoch1_step10.pt", "epoch1_step20.pt", "epoch2_step30.pt"], "1-·-10 1-·-20 2", "epoch"),
    (["best.pt", "last.pt"], "best last", "checkpoint"),
    (["model_best.pth.tar", "checkpoint.pth.tar"], "best checkpoint", "checkpoint"),
]


@pytest.mark.parametrize(
    ("files", "labels", "unit"), RUNS, ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_names_as_programs_write_them(files, labels, unit):
    mixed = list(files)
    random.shuffle(mixed)
    run = find_runs(mixed)[0]
    wanted = [label.replace("-", " ") for label in labels.split()]
    assert [row.label for row in run.snapshots] == wanted
    assert run.unit == unit
    assert [file for file in files if file in run.files] == list(run.files)  # in the order of training
    assert run == find_runs(files)[0]


@pytest.mark.parametrize(
    "files",
    [
        ["resnet18.pth", "resnet34.pth", "resnet50.pth"],
        ["resnet20-12fca82f.th", "resnet32-d509ac18.th"],
        ["squeezenet1_0.pth", "squeezenet1_1.pth"],
        ["mobilenet_v2.pth", "mobilenet_v3.pth"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["epoch_1.pth", "other/epoch_2.pth"],
        ["epoch_1.pth", "epoch_2.ckpt"],
        ["fold1_epoch3.pt", "fold2_epoch3.pt"],
        ["step_1/optimizer.pt", "step_2/optimizer.pt"],
        ["model.pt", "weights.pt"],
        ["best.pt"],
        [],
    ],
)
def test_what_is_no_run(files):
    assert find_runs(files) == ()


def test_sizes_keep_apart_what_only_looks_numbered():
    files = {"vgg_16.pth": 553_433_881, "vgg_19.pth": 574_673_361}
    assert find_runs(files) and not find_runs(files, files)
    grown = {
        "net_1.pth": 1_000_000,
        "net_2.pth": 1_004_000,
        "net_3.pth": 2_000_000,
    }  # a history grows, the third is another
    assert find_runs(grown, grown)[0].files == ("net_1.pth", "net_2.pth")
    said = {"epoch_1.pth": 1_000_000, "epoch_2.pth": 3_000_000}  # the word says it: the optimiser may be beside it
    assert len(find_runs(said, said)[0].files) == 2


def test_runs_of_two_folders_and_two_networks_stay_apart():
    files = [f"{folder}/epoch_{i}.pth" for folder in ("a", "b") for i in (1, 2, 3)] + ["b/best.pth"]
    assert [run.files[-1] for run in find_runs(files)] == ["b/best.pth", "a/epoch_3.pth"]
    files = [f"{name}_epoch{i}.pth" for name in ("resnet18", "resnet34") for i in (1, 2)]
    runs = find_runs([*files, "resnet34_best.pth", "best.pth"])
    assert [len(run.files) for run in runs] == [3, 2]
    assert runs[0].files[-1] == "resnet34_best.pth"  # whose a bare "best" is, nothing says
    assert run_of("resnet18_epoch2.pth", files).files == ("resnet18_epoch1.pth", "resnet18_epoch2.pth")
    assert run_of("other.pth", files) is None


def test_labels_of_a_run_are_all_different():
    run = find_runs(["epoch=1-val_loss=0.2.ckpt", "epoch=1-val_loss=0.3.ckpt", "epoch=2-val_loss=0.1.ckpt"])[0]
    labels = [row.label for row in run.snapshots]
    assert len(set(labels)) == 3 and labels[2] == "2"


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three epochs of one small network, whose weights shrink to rank one, and its best."""
    torch.manual_seed(0)
    module = sp.zoo.create("textures-vgg", classes=4)
    state = module.state_dict()
    first = state["features.0.weight"]
    line = first[:1].clone()
    for epoch in range(3):
        weight = (1 - epoch / 2) * first + epoch / 2 * line
        content = {"state_dict": state | {"features.0.weight": weight}, "epoch": epoch, "val_loss": 1.0 - epoch / 4}
        torch.save(content, tmp_path / f"vgg_epoch_{epoch}.pth")
        if epoch == 1:
            torch.save(content, tmp_path / "vgg_best.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    (tmp_path / "vgg_epoch_3.pth").write_bytes(b"half written")
    return tmp_path


def test_a_folder_is_a_run_and_best_is_placed_by_what_it_holds(folder):
    run = sp.training_run(folder)
    assert [row.label for row in run.snapshots] == ["0", "1", "best (1)", "2", "3"]
    assert run.run.unit == "epoch" and run.others == ()
    first = run.load(run.snapshots[0], device="cpu")
    second = run.load(run.snapshots[1], like=first, device="cpu")
    assert first.architecture == second.architecture == "zoo:textures-vgg"
    assert first.fingerprint != second.fingerprint


def test_what_is_followed_is_what_each_network_says_by_itself(folder):
    run = training_run(folder)
    moments = list(over_epochs(run, device="cpu"))
    assert [one.label for one in moments] == ["0", "1", "best (1)", "2", "3"]
    assert "vgg_epoch_3.pth" in moments[-1].reason and not moments[-1].ranks
    for one in moments[:-1]:
        net = sp.load(folder / one.file, device="cpu")
        weight = find(net, "features.0")
        values = torch.linalg.svdvals(weight.matrix.double())
        row = one.ranks["features.0"]
        assert row.sigma == pytest.approx(float(values[0]), rel=1e-5)
        assert row.effective == pytest.approx(effective_rank(values), rel=1e-3)
        assert row.stable == pytest.approx(stable_rank(values), rel=1e-5)
        energy = symmetry(weight, "half turn").energy
        assert one.symmetries["features.0"]["half turn"].energy == pytest.approx(energy)
        assert one.fingerprint == net.fingerprint and one.record["val_loss"] == 1.0 - one.position / 4
    assert moments[1].fingerprint == moments[2].fingerprint
    ranks = [one.ranks["features.0"].effective for one in moments[:-1]]
    assert ranks[0] > 5 and ranks[-1] < 1.5
    assert "channels" not in moments[0].symmetries["features.0"]  # 3 and 32 channels: it makes no sense
    only = next(iter(over_epochs(run, layers=("features.3",), device="cpu")))
    assert list(only.ranks) == list(only.symmetries) == ["features.3"]


def test_epochs_inside_the_files_tell_where_names_do_not(tmp_path):
    for name, epoch in (("a.pth", 7), ("b.pth", 2), ("c.pth", 11)):
        torch.save({"state_dict": torch.nn.Linear(3, 2).state_dict(), "epoch": epoch}, tmp_path / name)
    torch.save({"state_dict": torch.nn.Linear(4, 2).state_dict(), "epoch": 3}, tmp_path / "d.pth")  # another network
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "e.pth")
    run = training_run(tmp_path)
    assert [(row.file, row.label) for row in run.snapshots] == [("b.pth", "2"), ("a.pth", "7"), ("c.pth", "11")]


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(SpError, match=r"nowhere is not a folder; give the folder"):
        training_run(tmp_path / "nowhere")
    with pytest.raises(SpError, match="holds no checkpoint file, but no two of one training run"):
        training_run(tmp_path)
    (tmp_path / "one.pth").write_bytes(b"")
    with pytest.raises(SpError, match=r"holds 1 checkpoint files \(one.pth\), but no two"):
        training_run(tmp_path)


def test_files_are_found_one_level_deep_by_their_endings(tmp_path):
    for name in ("a.pth", "b.txt", "run/c.CKPT", "run/deeper/d.pth", ".hidden/e.pth"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"123")
    assert checkpoint_files(tmp_path) == {"a.pth": 3, "run/c.CKPT": 3}


# --- figures and the verb -------------------------------------------------------------------------------------------


def test_figures_show_the_numbers_and_mark_the_chosen_epoch(folder):
    moments = [one for one in over_epochs(training_run(folder), device="cpu") if not one.reason]
    figure = figures.ranks_over_epochs(moments, "features.0", "2", "epoch")
    lines, rings = figure.data[::2], figure.data[1::2]
    assert [list(line.x) for line in lines] == [[0, 1, 1, 2]] * 3
    assert lines[1].y[3] == moments[3].ranks["features.0"].effective and rings[1].x[0] == 2
    plot = figures.symmetry_over_epochs(moments, "features.0", "half turn", "0", "epoch")
    assert plot.data[0].y[0] == moments[0].symmetries["features.0"]["half turn"].energy
    low, high = plot.layout.yaxis.range
    assert low < min(plot.data[0].y) and max(plot.data[0].y) < high
    rows = figures.table(moments, "features.0")
    assert rows[3]["file: val_loss"] == 0.5 and rows[3]["σ₁"] == moments[3].ranks["features.0"].sigma


def test_the_verb_prints_a_line_a_checkpoint(folder, capsys):
    assert main(["epochs", str(folder), "--device", "cpu", "--layers", "2", "--json"]) == 0
    out = capsys.readouterr()
    answer = json.loads(out.out)
    assert [row["epoch"] for row in answer["checkpoints"]] == [0, 1, 1, 2, 3]
    assert [row["layer"] for row in answer["checkpoints"][0]["layers"]] == ["features.0", "features.3"]
    assert answer["checkpoints"][0]["training"]["val_loss"] == 1.0 and answer["checkpoints"][4]["fingerprint"] is None
    assert "vgg_epoch_3.pth" in out.err
    assert main(["epochs", str(folder), "--device", "cpu"]) == 0
    text = capsys.readouterr().out.splitlines()
    assert len(text) == 6 and "val_loss 0.5" in text[4]
    assert main(["epochs", str(folder / "nowhere")]) == 2
    assert main(["epochs", str(folder), "--layers", "0"]) == 2
    assert "--layers must be at least 1; got 0" in capsys.readouterr().err
