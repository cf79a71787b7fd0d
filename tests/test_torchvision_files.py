"""Every classifier of torchvision, as people save it."""

import pytest
import torch
from torch import nn

import sp_core as sp
from benchmarks.identify import CONTAINERS, randomised, save
from sp_core.checkpoints import catalogue
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.read import Checkpoint
from tests.test_identify import empty


@pytest.mark.slow
@pytest.mark.parametrize("short", catalogue.torchvision_names())
def test_every_classifier_is_recognised_under_every_prefix(short):
    name = f"torchvision:{short}"
    for prefix in ("", "module.", "model.", "model.module._orig_mod."):
        state = {prefix + key: value for key, value in empty(name, 7).items()}
        verdict, module, _ = identify(Checkpoint(state))
        assert (verdict.architecture, verdict.confidence, verdict.classes) == (name, "exact", 7), prefix
        assert module.state_dict().keys() == empty(name, 7).keys()


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "short",
    [
        *("squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small", "mobilenet_v2", "regnet_y_400mf"),
        *("efficientnet_b0", "googlenet"),
    ],
)
def test_files_of_small_families_come_back_exactly(short, container, tmp_path):
    net = randomised(catalogue.build(f"torchvision:{short}", 3))
    path = tmp_path / ("net.safetensors" if container == "safetensors" else "net.pth")
    save(net.state_dict(), container, path)
    found = sp.load(path, device="cpu")
    assert (found.architecture, found.confidence, found.class_count) == (f"torchvision:{short}", "exact", 3)
    held, sure = found.module.state_dict(), net.state_dict()
    assert held.keys() == sure.keys() and all(torch.equal(held[key], sure[key]) for key in sure)


def test_the_benchmark_leaves_no_value_zero():
    """Zeros hide differences between networks: a residual branch that is multiplied by zero computes nothing."""
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    values = [value for value in net.state_dict().values() if value.is_floating_point()]
    assert all(bool((value != 0).all()) for value in values) and float(net[1].running_var.min()) > 0
