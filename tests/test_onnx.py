"""ONNX: initializers and constants as weights, in torch's layouts; a graph that is spoilt, or reaches outside."""

import numpy as np
import pytest
import torch

from sp_core.checkpoints.limits import Limits
from sp_core.checkpoints.read import read_bytes
from sp_core.checkpoints.sources import load_bytes
from sp_core.errors import SpError
from tests.fuzz import messages
from tests.fuzz.messages import model, node, tensor
from tests.fuzz.seeds import onnx_file

DICE = np.random.default_rng(5)
CONV = DICE.standard_normal((4, 3, 3, 3)).astype("float32")
MATRIX = DICE.standard_normal((5, 2)).astype("float32")


def weights(nodes, tensors, **options):
    return read_bytes(model(nodes, tensors), "net.onnx", **options)


def test_weights_are_labelled():
    found = read_bytes(onnx_file(), "net.onnx")
    assert found.container == "onnx"
    assert found.notes[0] == "ONNX file: only its weights were read, its graph was not."
    assert found.metadata == {"producer": "by hand", "producer_version": "1", "opset": 17}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("float32", "raw"), ("float32", "float"), ("float32", "float one by one"), ("float64", "raw"),
        ("float64", "double"), ("float16", "raw"), ("float16", "int32"), ("int8", "raw"), ("int8", "int32"),
        ("uint8", "int32"), ("int32", "int32"), ("int64", "int64"), ("int64", "raw"),
    ],
)  # fmt: skip
def test_every_way_to_write_numbers(kind, how):
    array = (DICE.standard_normal((4, 3, 3, 3)) * 50).astype(kind)
    found = weights([node("Conv", ["x", "c.weight"], ["y"])], [tensor("c.weight", array, how)])
    wanted = torch.from_numpy(array)
    got = found.tensors["c.weight"]
    assert torch.equal(got, wanted.float() if wanted.is_floating_point() else wanted)
    assert ("became float32" in " ".join(found.notes)) == (kind in {"float16", "float64"})


def test_bfloat16():
    array = torch.randn(4, 3).bfloat16()
    raw = tensor("c.weight", array.view(torch.int16).numpy(), "raw", kind=16)
    assert torch.equal(
        weights([node("Gemm", ["x", "c.weight"], ["y"], transB=1)], [raw]).tensors["c.weight"], array.float()
    )


def test_matrices_are_turned_as_torch_keeps_them():
    for layer, turned in (
        (node("Gemm", ["x", "w"], ["y"]), True),
        (node("Gemm", ["x", "w"], ["y"], transB=0), True),
        (node("Gemm", ["x", "w"], ["y"], transB=1), False),
        (node("MatMul", ["x", "w"], ["y"]), True),
        (node("MatMul", ["w", "x"], ["y"]), False),
    ):
        found = weights([layer], [tensor("w", MATRIX)])
        assert torch.equal(found.tensors["w"], torch.from_numpy(MATRIX.T if turned else MATRIX))
        assert ("1 matrices were transposed to [out, in], as PyTorch keeps them." in found.notes) == turned


def test_names_that_exporters_make_up():
    found = weights(
        [
            node("Conv", ["x", "onnx::Conv_12", "13"], ["a"], "/layer1/layer1.0/conv1/Conv"),
            node(
                "BatchNormalization",
                ["a", "9", "10", "11", "12"],
                ["b"],
                "/layer1/layer1.0/down/down.1/BatchNormalization",
            ),
            node("Conv", ["b", "14"], ["c"]),
            node("Add", ["c", "15"], ["y"]),
        ],
        [tensor("onnx::Conv_12", CONV), tensor("13", CONV[:, 0, 0, 0]), tensor("14", CONV), tensor("15", CONV[0, 0, 0])]
        + [tensor(str(place), CONV[:, 0, 0, 0] + place) for place in range(9, 13)],
    )
    assert found.tensors.keys() == {
        "layer1.0.conv1.weight", "layer1.0.conv1.bias", "layer1.0.down.1.weight", "layer1.0.down.1.bias",
        "layer1.0.down.1.running_mean", "layer1.0.down.1.running_var", "conv_2.weight", "conv_2.bias",
    }  # fmt: skip
    assert "8 weights are named after the layers that use them." in found.notes


def test_constants_shapes_and_equal_weights():
    found = weights(
        [
            node("Constant", [], ["kernel"], value=tensor("", CONV)),
            node("Constant", [], ["shape"], value=tensor("", np.array([1, -1]), "int64")),
            node("Constant", [], ["half"], value=tensor("", np.array([0.5, 0.2], "float32"))),
            node("Identity", ["a.bias"], ["b.bias"]),
            node("Conv", ["x", "kernel", "a.bias"], ["y"], "/a/Conv"),
            node("Conv", ["x", "b.weight", "b.bias"], ["z"]),
        ],
        [tensor("a.bias", CONV[:, 0, 0, 0]), tensor("b.weight", CONV), tensor("axes", np.array([0, 1, 2]), "int64")],
    )
    assert found.tensors.keys() == {"kernel", "a.bias", "b.weight", "b.bias"}
    assert found.tensors["b.bias"] is found.tensors["a.bias"]


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_weights_are_real_again(per_channel):
    whole = DICE.integers(-127, 127, (4, 3, 3, 3), "int8")
    scale = np.array([0.1, 0.2, 0.3, 0.4], "float32") if per_channel else np.array(0.1, "float32")
    zero = np.array([0, 1, 2, 3], "int8") if per_channel else np.array(2, "int8")
    found = weights(
        [node("DequantizeLinear", ["c.weight", "s", "z"], ["w"], axis=0), node("Conv", ["x", "w"], ["y"])],
        [tensor("c.weight", whole), tensor("s", scale), tensor("z", zero)],
    )
    along = (slice(None), None, None, None) if per_channel else ()
    wanted = (whole.astype("float32") - zero[along]) * scale[along]
    np.testing.assert_allclose(found.tensors["c.weight"], wanted, rtol=1e-6)
    assert found.tensors.keys() == {"c.weight"} and "1 quantised tensors were turned back into float32." in found.notes


def test_a_quantised_matrix_keeps_its_axis_when_it_is_turned():
    whole = DICE.integers(-127, 127, (5, 2), "int8")
    scale = np.array([0.5, 2.0], "float32")
    found = weights(
        [node("DequantizeLinear", ["w", "s"], ["r"], axis=-1), node("MatMul", ["x", "r"], ["y"])],
        [tensor("w", whole), tensor("s", scale)],
    )
    np.testing.assert_allclose(found.tensors["w"], (whole * scale).T, rtol=1e-6)


def test_quantised_convolutions():
    whole = DICE.integers(-127, 127, (4, 3, 3, 3), "int8")
    names = ["x", "xs", "xz", "c.weight", "ws", "wz", "ys", "yz", "c.bias"]
    small = [tensor(name, np.array(0.5, "float32")) for name in ("xs", "ws", "ys")]
    small += [tensor(name, np.array(0, "int8")) for name in ("xz", "wz", "yz")]
    bias = tensor("c.bias", np.arange(4, dtype="int32"))
    found = weights([node("QLinearConv", names, ["y"])], [tensor("c.weight", whole), bias, *small])
    np.testing.assert_allclose(found.tensors["c.weight"], whole * 0.5)
    assert found.tensors.keys() == {"c.weight", "c.bias"}


def test_weights_in_other_files_are_not_followed(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"0" * 432)
    outside = tensor("c.weight", CONV, "external")
    with pytest.raises(
        SpError, match=r"ONNX file without weights of its own: 1 tensors lie in other files, which are not"
    ):
        weights([node("Conv", ["x", "c.weight"], ["y"])], [outside])
    found = weights([node("Conv", ["x", "c.weight", "c.bias"], ["y"])], [outside, tensor("c.bias", CONV[:, 0, 0, 0])])
    assert list(found.tensors) == ["c.bias"] and "1 tensors lie in other files" in found.notes[1]


def test_sizes_are_checked_before_memory_is_taken():
    vast = messages.number(1, 2**40) + messages.number(2, 1) + messages.block(9, b"1234") + messages.block(8, "w")
    with pytest.raises(SpError, match="'w' has 4 bytes where 4398046511104 are needed"):
        weights([], [vast])
    less = messages.number(1, -1) + messages.number(2, 1) + messages.block(8, "w")
    with pytest.raises(SpError, match="sizes and strides are no sizes"):
        weights([], [less])
    with pytest.raises(SpError, match="has more than 50 fields"):
        weights([node("Relu", ["x"], ["y"])] * 30, [tensor("w", MATRIX)], limits=Limits(steps=50))
    many = messages.number(2, 7) + messages.block(7, b"\x01" * 5000) + messages.block(8, "w")
    with pytest.raises(SpError, match="has more than 4000 fields"):
        weights([], [many], limits=Limits(steps=4000))
    with pytest.raises(SpError, match="holds 4 tensors; at most 3 are read"):
        weights([], [tensor(str(place), MATRIX) for place in range(9)], limits=Limits(tensors=3))
    with pytest.raises(SpError, match="'w' is named twice"):
        weights([], [tensor("w", MATRIX), tensor("w", MATRIX)])
    for end in range(40, len(onnx_file()), 53):
        with pytest.raises(SpError):
            read_bytes(onnx_file()[:end])


def test_other_protocol_buffers_are_named():
    with pytest.raises(SpError, match=r"looks like a protocol buffer \(Caffe or TensorFlow\)"):
        read_bytes(messages.block(1, "net") + messages.block(2, "data" * 30))
    with pytest.raises(SpError, match="ONNX file without weights of its own: give the network"):
        read_bytes(model([node("Relu", ["x"], ["y"])], []))


def test_an_exported_classifier_is_recognised():
    """Written as torch's exporter writes it: names of the state dict, fully connected layers with transB."""
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.squeezenet1_1(num_classes=7).eval()
    state = module.state_dict()
    layers = [node("Conv", ["x", name, name.replace("weight", "bias")], [name]) for name in state if "weight" in name]
    data = model(layers, [tensor(name, value.numpy()) for name, value in state.items()])
    net = load_bytes(data, "net.onnx", device="cpu")
    assert (net.architecture, net.confidence) == ("torchvision:squeezenet1_1", "exact")
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net.module(image), module(image))


def test_our_files_are_files_to_the_library_too():
    """Where the onnx library is installed, it is the second opinion on what the tests write."""
    onnx = pytest.importorskip("onnx")
    loaded = onnx.load_from_string(onnx_file())
    ours = read_bytes(onnx_file()).tensors
    by_name = {one.name: onnx.numpy_helper.to_array(one) for one in loaded.graph.initializer}
    np.testing.assert_array_equal(ours["conv.weight"], by_name["conv.weight"])
    np.testing.assert_array_equal(ours["fc.weight"], by_name["onnx::Gemm_3"].T)
    np.testing.assert_array_equal(ours["h"], by_name["h"].astype("float32"))
