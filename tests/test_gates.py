"""Recurrent layers, one matrix a gate: against the equations of the layers, in networks and in loose weights."""

import pytest
import torch
from torch import nn

import sp_core as sp
from sp_core.checkpoints.loose import loose
from sp_core.network import Network
from sp_core.weights import find, matrices, read_spectra, weights
from sp_core.weights.stacked import blocks


def _of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {block.name: block.tensor for block in blocks(module)}


def test_an_lstm_computed_from_its_gates_is_the_lstm():
    layer = nn.LSTM(5, 4)
    gate = _of(layer)
    x, h, c = torch.randn(5), torch.zeros(4), torch.zeros(4)
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).chunk(4)
    steps = torch.randn(3, 5)
    expected, _ = layer(steps)
    for x, wanted in zip(steps, expected, strict=True):
        i, f, g, o = (
            gate[f"weight_ih_l0[{name}]"] @ x + gate[f"weight_hh_l0[{name}]"] @ h + b
            for name, b in zip("ifgo", bias, strict=True)
        )
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        assert torch.allclose(h, wanted, atol=1e-6)


def test_a_gru_computed_from_its_gates_is_the_gru():
    layer = nn.GRU(5, 4)
    gate = _of(layer)
    from_input, from_state = layer.bias_ih_l0.chunk(3), layer.bias_hh_l0.chunk(3)
    h = torch.randn(4)
    x = torch.randn(5)
    expected, _ = layer(x[None], h[None])
    a = {n: gate[f"weight_ih_l0[{n}]"] @ x + b for n, b in zip("rzn", from_input, strict=True)}
    b = {n: gate[f"weight_hh_l0[{n}]"] @ h + b for n, b in zip("rzn", from_state, strict=True)}
    r, z = (a["r"] + b["r"]).sigmoid(), (a["z"] + b["z"]).sigmoid()
    new = (a["n"] + r * b["n"]).tanh()
    assert torch.allclose((1 - z) * new + z * h, expected[0], atol=1e-6)


def test_query_key_and_value_are_the_rows_in_that_order():
    layer = nn.MultiheadAttention(6, 1, bias=False)
    part = _of(layer)
    x = torch.randn(5, 6)
    query, key, value = (x @ part[f"in_proj_weight[{name}]"].T for name in "qkv")
    scores = (query @ key.T / 6**0.5).softmax(1)
    assert torch.allclose(scores @ value @ layer.out_proj.weight.T, layer(x, x, x)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.RNN(3, 4), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.RNNCell(3, 4), ["weight_ih", "weight_hh"]),
        (nn.LSTMCell(3, 4), [f"weight_{part}[{gate}]" for part in ("ih", "hh") for gate in "ifgo"]),
        (nn.GRUCell(3, 3), [f"weight_{part}[{gate}]" for part in ("ih", "hh") for gate in "rzn"]),
        (nn.Linear(3, 4), []),
    ],
)
def test_which_matrices_there_are(module, names):
    assert list(_of(module)) == names


def test_two_directions_two_layers_and_a_projection():
    layer = nn.LSTM(7, 6, num_layers=2, bidirectional=True, proj_size=2)
    found = _of(layer)
    assert len(found) == 2 * 2 * (4 + 4 + 1)
    assert found["weight_hr_l1_reverse"].shape == (2, 6)
    assert found["weight_ih_l1[g]"].shape == (6, 4) and found["weight_hh_l0_reverse[o]"].shape == (6, 2)
    assert torch.equal(found["weight_ih_l0_reverse[f]"], layer.weight_ih_l0_reverse[6:12])
    whole = torch.cat([found[f"weight_ih_l0[{gate}]"] for gate in "ifgo"])
    assert torch.equal(whole, layer.weight_ih_l0)


def test_rows_that_are_no_gates_are_kept_whole():
    odd = nn.Module()
    odd.weight_ih_l0 = nn.Parameter(torch.randn(10, 3))
    odd.weight_hh_l0 = nn.Parameter(torch.randn(10, 5))  # two blocks: no layer of torch.nn has that
    assert {block.name: (block.kind, len(block.tensor)) for block in blocks(odd)} == {
        "weight_ih_l0": ("recurrent", 10), "weight_hh_l0": ("recurrent", 10),
    }  # fmt: skip


class Reader(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.memory = nn.LSTM(16, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, image):
        return self.out(self.memory(self.conv(image).permute(0, 2, 1, 3).flatten(2))[0][:, -1])


def test_in_a_network_and_loose_they_are_the_same_matrices():
    module = Reader()
    running = Network(module, name="reader", input_size=(1, 8, 8))
    alone = Network(loose(module.state_dict(), "a file"), name="file", confidence="weights-only")
    names = ["conv.weight"] + [f"memory.weight_{p}_l0[{g}]" for p in ("ih", "hh") for g in "ifgo"] + ["out.weight"]
    for net in (running, alone):
        rows = matrices(net)
        assert [row.name for row in rows] == names and all(row.runs for row in rows)
        assert list(sp.singular_values(net)) == names
        assert [row.name for row in weights(net)] == ["conv.weight", "out.weight"]
    forget = find(alone, "memory.hh_l0[f]")
    assert (forget.kind, forget.part, forget.layer) == ("LSTM", "forget gate, from the state", "memory.hh_l0[f]")
    expected = torch.linalg.svdvals(module.memory.weight_hh_l0[5:10].double())
    got = next(row for row in read_spectra(alone) if row.layer == "memory.hh_l0[f]")
    assert torch.allclose(got.values, expected, atol=1e-6)


def test_a_parametrised_recurrent_weight_is_computed():
    layer = nn.GRU(3, 4)
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    found = _of(layer)
    assert torch.allclose(torch.cat([found[f"weight_hh_l0[{gate}]"] for gate in "rzn"]), layer.weight_hh_l0)


def test_a_file_of_nothing_but_a_recurrent_layer():
    net = Network(loose(nn.GRU(3, 4).state_dict(), "gru.pth"), name="gru", confidence="weights-only")
    assert [row.layer for row in matrices(net)][:3] == ["ih_l0[r]", "ih_l0[z]", "ih_l0[n]"]
    with pytest.raises(sp.SpError, match="gru has no convolution and no linear layer"):
        weights(net)
