"""Programs: their weights under the names that state_dict() gives them, and nothing of them compiled or run."""

import io
import json
import re
import warnings
import zipfile

import pytest
import torch
from torch import nn

from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.read import read_bytes
from sp_core.checkpoints.sources import load_bytes
from sp_core.errors import SpError
from tests.fuzz.seeds import exported, rezipped

pytestmark = [pytest.mark.filterwarnings("ignore")]  # torch.jit announces that it will go one day
NOTE = "TorchScript program: only its weights were read, its code was not."


class Net(nn.Module):
    """Ties, lists, a buffer, a tensor that is neither parameter nor buffer, and a module used in two places."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight
        self.parts = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)])
        self.twice = self.parts[0]
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("table", torch.arange(5))
        self.plain = torch.zeros(7)
        self.named = {"x": torch.ones(2)}
        self.sizes = [1, 2]

    def forward(self, x):
        return self.b(self.a(x)) * self.scale + self.plain.sum() + self.table.sum() + self.named["x"].sum()


def program(module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def made(how):
    torch.manual_seed(3)
    net = Net().eval()
    return torch.jit.script(net) if how == "script" else torch.jit.trace(net, torch.zeros(1, 3))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_names_and_numbers_are_those_of_torch(how):
    data = program(made(how))
    wanted = torch.jit.load(io.BytesIO(data)).state_dict()
    found = read_bytes(data, "net.pt")
    assert found.container == "torchscript" and found.notes == (NOTE,)
    assert found.tensors.keys() == wanted.keys() and "plain" not in found.tensors
    assert all(torch.equal(found.tensors[key], wanted[key]) for key in wanted)
    assert found.tensors["a.weight"] is found.tensors["b.weight"]
    assert found.tensors["parts.0.weight"] is found.tensors["twice.weight"]


def test_precision_and_optimised_for_mobile():
    data = program(torch.jit.script(Net().half()))
    found = read_bytes(data)
    assert "12 tensors were float16 and became float32." in found.notes
    buffer = torch.jit.script(Net())._save_to_buffer_for_lite_interpreter()
    assert read_bytes(buffer, "net.ptl").tensors.keys() == found.tensors.keys()


def test_code_is_never_compiled_or_run(monkeypatch):
    data = program(made("script"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    evil = b"def forward(self): import os; os.system('x') !!"
    files = {
        name: re.sub(rb"def forward.*", evil, content, flags=re.S) if name.endswith(".py") else content
        for name, content in files.items()
    }
    for door in ("torch.jit.load", "torch.load", "torch._C.import_ir_module", "torch._C.import_ir_module_from_buffer"):
        monkeypatch.setattr(door, lambda *_, **__: pytest.fail("the program was loaded"))
    assert "a.weight" in read_bytes(rezipped(files)).tensors


def test_frozen_programs_have_lost_their_names():
    data = program(torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval())))
    found = read_bytes(data)
    assert list(found.tensors) == ["c0.weight", "c1"] and found.tensors["c0.weight"].shape == (4, 3, 3, 3)
    assert found.notes[1] == "The program was frozen: its weights lost their names; c0, c1 … are those of its code."


def test_quantised_layers_are_unpacked():
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("no engine for quantised networks here")
    net = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    net.qconfig = torch.ao.quantization.get_default_qconfig("qnnpack")
    ready = torch.ao.quantization.prepare(net)
    ready(torch.rand(2, 3, 4, 4))
    small = torch.ao.quantization.convert(ready)
    found = read_bytes(program(torch.jit.script(small)))
    assert found.tensors.keys() == {"1.weight", "1.bias", "3.weight", "3.bias"}
    torch.testing.assert_close(found.tensors["1.weight"], small[1].weight().dequantize())
    torch.testing.assert_close(found.tensors["3.weight"], small[3].weight().dequantize())
    assert "2 quantised tensors were turned back into float32." in found.notes


def test_a_scripted_classifier_is_recognised():
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.squeezenet1_1(num_classes=7).eval()
    image = torch.rand(1, 3, 64, 64)
    for scripted in (torch.jit.script(module), torch.jit.trace(module, image)):
        net = load_bytes(program(scripted), "net.pt", device="cpu")
        assert (net.architecture, net.confidence) == ("torchvision:squeezenet1_1", "exact")
        assert NOTE in net.warnings
        torch.testing.assert_close(net.module(image), module(image))


def test_sizes_are_checked_against_the_archive():
    data = program(made("script"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        root = archive.namelist()[0].split("/")[0]
    short = files | {f"{root}/data/0": files[f"{root}/data/0"][:2]}
    with pytest.raises(SpError, match=r"its part '.*/data/0' has 2 bytes where 4 are needed"):
        read_bytes(rezipped(short))
    gone = {name: content for name, content in files.items() if name != f"{root}/data/0"}
    with pytest.raises(SpError, match="does not hold the numbers '0' that it speaks of"):
        read_bytes(rezipped(gone))
    with pytest.raises(SpError, match=r"holds \d+ tensors; at most 2"):
        read_bytes(data, limits=Limits(tensors=2))


def test_modules_that_hold_each_other_end():
    """A tree in which every module holds the next one twice: forty levels, a million million paths."""
    body = b"\x80\x02c__torch__\nA\n)\x81q\x00}(X\x01\0\0\0wNub"
    for place in range(1, 41):
        body += b"c__torch__\nA\n)\x81q" + bytes([place])
        body += b"}(X\x01\0\0\0ah" + bytes([place - 1]) + b"X\x01\0\0\0bh" + bytes([place - 1]) + b"ub"
    files = {"n/data.pkl": body + b".", "n/constants.pkl": b"\x80\x02)."}
    with pytest.raises(SpError, match="has more than 20000 pickled parts"):
        read_bytes(rezipped(files), limits=Limits(steps=20_000))
    circle = b"\x80\x02c__torch__\nA\n)\x81q\x00}(X\x01\0\0\0ah\x00ub."
    with pytest.raises(SpError, match="a TorchScript program without weights"):
        read_bytes(rezipped(files | {"n/data.pkl": circle}))


# --- its relatives ----------------------------------------------------------------------------------------------------


def test_exported_programs_by_hand():
    found = read_bytes(exported(), "net.pt2")
    assert found.container == "exported" and found.tensors["fc.weight"].shape == (4, 3)
    assert found.notes == ("Exported program: only its weights were read, its graph was not.",)


@pytest.mark.slow
def test_exported_programs_as_torch_writes_them():
    net = Net().eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3),)), buffer)
    found, wanted = read_bytes(buffer.getvalue()), net.state_dict()
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(found.tensors[key], wanted[key]) for key in wanted)


def test_spoilt_exported_programs():
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["net/data/weights/model_weights_config.json"])
    config["config"]["fc.weight"]["tensor_meta"]["sizes"] = [{"as_int": 400}, {"as_int": 3}]
    large = files | {"net/data/weights/model_weights_config.json": json.dumps(config).encode()}
    with pytest.raises(SpError, match=r"'fc\.weight' claims 4800 bytes but the file holds 48"):
        read_bytes(rezipped(large))
    with pytest.raises(SpError, match=r"exported program \(\.pt2\) with 0 lists of weights"):
        read_bytes(rezipped({"net/archive_format": b"pt2"}))


def test_packages_say_what_is_in_them():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.package.PackageExporter(buffer) as package:
            package.extern("**")
            package.save_pickle("model", "net.pkl", nn.Linear(3, 2))
    with pytest.raises(
        SpError, match=r"(?s)torch\.package archive.*load_pickle\('model', 'net\.pkl'\).*Linear; 2 tensors"
    ):
        read_bytes(buffer.getvalue(), "p.pt")


def test_older_programs_are_named():
    with pytest.raises(SpError, match=r"TorchScript program of before PyTorch 1\.3; save its weights with an older"):
        read_bytes(rezipped({"net/version": b"1", "net/model.json": b"{}", "net/tensors/0": b"1234"}))
    with pytest.raises(SpError, match=r"exported program of before PyTorch 2\.8"):
        read_bytes(rezipped({"serialized_exported_program.json": b"{}"}))
