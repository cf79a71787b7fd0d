"""Files as people have them, dropped into the sidebar of a real server; what is said by hand of how they are fed."""

from __future__ import annotations

import hashlib
import json
import re
import warnings

import pytest
import torch
from playwright.sync_api import expect
from safetensors.torch import save_file
from torch import nn

import sp_core as sp
from tests.fuzz.seeds import onnx_file

pytestmark = pytest.mark.browser


def state(classes=7):
    torch.manual_seed(0)
    return sp.zoo.create("textures-vgg", classes=classes).state_dict()


def odd():
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3))


def wrapped(path):
    names = {f"module.{name}": tensor for name, tensor in state().items()}
    torch.save({"state_dict": names, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 12}, path)


def lightning(path):
    names = {f"model.{name}": tensor for name, tensor in state().items()}
    torch.save({"state_dict": names, "hyper_parameters": {"lr": 0.02}, "pytorch-lightning_version": "2.0.0"}, path)


def script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and what people have
        torch.jit.save(torch.jit.trace(odd().eval(), torch.zeros(1, 3, 16, 16)), path)


FILES = {
    "safe.safetensors": (lambda path: save_file(state(), path), ["textures-vgg", "exact", "7 classes"]),
    "wrapped.pth": (wrapped, ["textures-vgg", "epoch", "12"]),
    "legacy.tar": (
        lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
        ["textures-vgg", "exact"],
    ),
    "lightning.ckpt": (lightning, ["textures-vgg", "pytorch-lightning"]),
    "odd.pt": (
        lambda path: torch.save(odd().half().state_dict(), path),
        ["weights-only", "First-layer filters", "tensors were float16", "Tensors"],
    ),
    "script.pt": (script, ["weights-only", "TorchScript", "First-layer filters"]),
    "net.onnx": (lambda path: path.write_bytes(onnx_file()), ["weights-only", "ONNX"]),
}
REFUSED = {
    "whole.pt": (lambda path: torch.save(odd(), path), "could run code"),
    "garbage.pth": (lambda path: path.write_bytes(bytes(range(256)) * 20), "garbage.pth"),
}


def upload(person, *paths):
    """Drop files; wait until the last is chosen."""
    name = hashlib.sha256(paths[-1].read_bytes()).hexdigest()[:16]
    person.page.locator("[data-testid=stSidebar] input[type=file]").first.set_input_files(list(paths))
    person.page.wait_for_url(re.compile(f"net=file(:|%3A){name}"))
    person.settle()


def pick(person, label, option):
    """Choose from a pick list by typing, as one does in a long one."""
    box = person.page.get_by_role("combobox", name=label)
    box.click()
    box.fill(option[:8])
    person.page.get_by_role("option", name=option, exact=True).click()


def everything(person) -> str:
    return person.main() + person.page.locator("[data-testid=stSidebar]").inner_text()


def test_each_kind_of_file_gets_its_card_and_what_is_none_a_sentence(visitor, address, tmp_path):
    person = visitor()
    person.open(f"{address}/card")
    for name, (write, words) in FILES.items():
        write(tmp_path / name)
        upload(person, tmp_path / name)
        person.check()
        text = everything(person)
        assert all(word in text for word in words), f"{name}: {text}"
        assert not re.search(r"\bnan\b|\bNone\b", person.main()), name
    for name, (write, word) in REFUSED.items():
        write(tmp_path / name)
        upload(person, tmp_path / name)
        said = " ".join(person.page.locator("[data-testid=stMain] [data-testid=stAlertContentError]").all_inner_texts())
        assert word in said and "Traceback" not in said, f"{name}: {said}"
        assert person.page.locator("[data-testid=stException]").count() == 0
    # All are still there to be chosen; the one that was first is taken again by typing.
    pick(person, "Network", "safe.safetensors (yours)")
    person.page.wait_for_url(re.compile(hashlib.sha256((tmp_path / "safe.safetensors").read_bytes()).hexdigest()[:16]))
    person.settle()
    person.check()
    assert "safe" in person.main()


def test_two_uploads_are_compared_with_each_other(visitor, address, tmp_path):
    before = state()
    after = before | {"classifier.bias": before["classifier.bias"] + 1}
    torch.save(before, tmp_path / "before.pth")
    torch.save(after, tmp_path / "after.pth")
    person = visitor()
    person.open(f"{address}/card")
    upload(person, tmp_path / "before.pth", tmp_path / "after.pth")
    pick(person, "Compare with", "before.pth (yours)")
    person.page.wait_for_url(re.compile("other=file"))
    person.settle()
    person.check()
    assert "classifier moved most" in person.main() and "frozen" in person.main()


def test_what_is_said_by_hand_is_kept_on_other_pages_and_in_the_link(visitor, address):
    person = visitor()
    person.open(f"{address}/card?net=bundled:textures-resnet")
    person.page.get_by_role("button", name="Change how it is fed").click()
    height = person.page.get_by_role("spinbutton", name="Height")
    height.fill("48")
    height.press("Enter")
    person.page.wait_for_url(re.compile("input=48x64"))
    person.settle()
    person.check()
    assert "48 × 64 pixels (as you said)" in person.main()
    person.page.keyboard.press("Escape")
    person.page.locator("[data-testid=stSidebarNav] a[href$='/receptive_fields']").click()
    person.page.wait_for_url(re.compile("/receptive_fields"))
    person.settle()
    person.check()
    assert "input=48x64" in person.page.url
    assert "3×48×64" in person.page.locator("[data-testid=stSidebar]").inner_text()
    other = visitor()
    other.open(person.page.url)
    other.check()
    assert "3×48×64" in other.page.locator("[data-testid=stSidebar]").inner_text()
    other.open(f"{address}/card?net=bundled:textures-resnet&input=48x64&norm=0.4/0.3")
    other.check()
    assert "48 × 64 pixels (as you said)" in other.main() and "0.4, 0.4, 0.4" in other.main()


def test_class_names_are_uploaded_and_named_by_their_content(visitor, address, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({str(i): [f"n{i:08}", f"kind {i}"] for i in range(18)}))
    person = visitor()
    person.open(f"{address}/card?net=bundled:textures-alexnet")
    person.page.get_by_role("button", name="Change how it is fed").click()
    person.page.locator("[data-testid=stPopoverBody] input[type=file]").set_input_files(names)
    person.page.wait_for_url(re.compile("names="))
    person.settle()
    person.check()
    assert "names.json" in person.main()
    expect(person.page.locator("[data-testid=stMain] svg.main-svg").first).to_contain_text("kind")
    other = visitor()
    other.open(person.page.url)
    other.check()
    assert "is not uploaded in this session" in everything(other)
