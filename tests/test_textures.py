import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sp_core.datasets import counter, textures
from sp_core.datasets.textures import CLASSES, Textures, render
from sp_core.errors import SpError

pytestmark = pytest.mark.usefixtures("one_thread")


def splitmix64(state):
    """The published SplitMix64 in Python's whole numbers: a second opinion on the int64 tensors."""
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def correlation(a, b):
    """Correlation of each image of ``a`` with that of ``b``, ``[n]``."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def test_the_hash_is_splitmix64():
    values = [0, 1, 2, 12345, (1 << 63) - 1, -1, -(1 << 63), -987654321]
    got = counter.mix(torch.tensor(values, dtype=torch.int64)).tolist()
    assert [g & ((1 << 64) - 1) for g in got] == [splitmix64(v) for v in values]


def test_random_numbers_are_uniform_and_independent_between_streams():
    key = counter.keys(0, torch.arange(4000))
    a, b = counter.uniform(key, 1, 5), counter.uniform(key, 2, 5)
    # 20,000 numbers: the standard error of a mean is 0.002, of a share of one tenth 0.0021, of a correlation 0.007.
    assert abs(float(a.mean()) - 0.5) < 0.01
    shares = torch.histc(a, 10, 0, 1) / a.numel()
    assert float((shares - 0.1).abs().max()) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([a[1:, 0], a[:-1, 0]]))[0, 1])) < 0.06


def test_an_image_is_the_same_alone_in_a_batch_and_in_any_order():
    whole = render(torch.arange(60), seed=3, size=64)
    assert whole.dtype == torch.uint8 and whole.shape == (60, 3, 64, 64)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(render(order, seed=3, size=64), whole[order])
    for index in (0, 17, 41):
        assert torch.equal(render(torch.tensor([index]), seed=3, size=64)[0], whole[index])
    data = Textures(60, seed=3)
    parts = torch.cat([data.batch(a, b)[0] for a, b in ((0, 1), (1, 30), (30, 60))])
    assert torch.equal(parts, whole.float() / 255)


def test_chunks_do_not_show(monkeypatch):
    whole = render(torch.arange(50), seed=0, size=32)
    monkeypatch.setitem(textures._CHUNK, "cpu", 7)
    assert torch.equal(render(torch.arange(50), seed=0, size=32), whole)


def test_seeds_and_indices_give_different_images():
    a, b = render(torch.arange(18), seed=0, size=32), render(torch.arange(18), seed=1, size=32)
    assert not any(torch.equal(x, y) for x in a for y in b)
    assert len({x.numpy().tobytes() for x in a}) == 18
    far = render(torch.tensor([10**12]), seed=2**40, size=32)  # endless: nothing overflows
    assert far.float().std() > 5


def test_offset_moves_the_window():
    assert torch.equal(Textures(10, offset=7).batch(0, 3)[0], Textures(20).batch(7, 10)[0])
    assert torch.equal(
        Textures(10, offset=7).parameters([0])["orientation"], Textures(20).parameters([7])["orientation"]
    )


@pytest.mark.parametrize(("small", "least"), [(64, 0.9), (32, 0.75)])
def test_a_large_picture_made_small_is_the_small_picture(small, least):
    indices = torch.arange(36)
    low = render(indices, seed=0, size=small).float()
    high = F.avg_pool2d(render(indices, seed=0, size=2 * small).float(), 2)
    same = correlation(low, high)
    assert float(same.min()) > least and float(same.mean()) > 0.97
    assert float(correlation(low, high.roll(1, 0)).abs().mean()) < 0.3  # and another picture is not


def test_every_class_is_drawn_equally_often():
    labels = Textures(18 * 50, seed=5).parameters(torch.arange(18 * 50))["label"]
    for block in labels.view(50, 18):
        assert sorted(block.tolist()) == list(range(18))
    assert len({tuple(block.tolist()) for block in labels.view(50, 18)}) == 50  # each block in an order of its own
    assert len(CLASSES) == 18


def test_labels_of_a_batch_are_those_of_the_parameters():
    data = Textures(40, seed=9)
    images, labels = data.batch(10, 30)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal((images * 255).round(), images * 255)  # eight bits
    assert torch.equal(labels, data.parameters(range(10, 30))["label"])


def test_the_fourier_peak_of_straight_stripes_is_where_the_parameters_say():
    """Frequency · (cos, sin) of the orientation, in cycles a side, for stripes without warp."""
    data = Textures(18 * 160, seed=11, size=128)
    p = data.parameters(torch.arange(len(data)))
    chosen = ((p["label"] == CLASSES.index("striped")) & (p["warp"] == 0) & (p["illumination"] < 0.2)).nonzero()[:, 0]
    assert len(chosen) >= 8
    window = torch.hann_window(128, periodic=False)
    for index in chosen[:12].tolist():
        image = data.batch(index, index + 1)[0][0]
        axis = p["palette"][index, 1] - p["palette"][index, 0]
        grey = (image * axis[:, None, None]).sum(0)
        # Zero padding to 512 reads the peak to a quarter of a cycle; the Hann window alone is four cycles wide.
        spectrum = torch.fft.rfft2((grey - grey.mean()) * window * window[:, None], s=(512, 512)).abs()
        row, column = divmod(int(spectrum.argmax()), spectrum.shape[1])
        found = torch.tensor([column, row if row < 256 else row - 512]) / 4
        f, angle = float(p["frequency"][index]), float(p["orientation"][index])
        true = f * torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
        assert min(float((found - true).norm()), float((found + true).norm())) < 0.5


def test_contrast_and_noise_are_in_the_picture():
    data = Textures(18 * 60, seed=2)
    p = data.parameters(torch.arange(len(data)))
    assert bool((p["palette"][:, 0] - p["palette"][:, 1]).norm(dim=1).min() > 0.44)
    assert float(p["contrast"].min()) >= 0.6 and float(p["noise"].max()) <= 0.06
    images = data.batch(0, 360)[0]
    spread = images.flatten(2).std(2).norm(dim=1)  # over the three colours
    assert float(spread.min()) > 0.06
    # Grain shows as differences between neighbours in images of soft, slow patterns.
    slow = p["label"][:360] == CLASSES.index("bubbly")
    rough = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).median(1).values
    grainy, clean = slow & (p["noise"][:360] > 0.03), slow & (p["noise"][:360] == 0)
    assert float(rough[grainy].mean()) > 1.5 * float(rough[clean].mean())


def test_a_network_gets_its_own_size_and_the_middle_when_it_is_not_square():
    class Fed:
        input_size = (3, 48, 64)
        device = torch.device("cpu")

    images, _ = Textures(4).batch(0, 4, Fed())
    assert torch.equal(images, Textures(4, size=64).batch(0, 4)[0][:, :, 8:56])
    Fed.input_size = (3, 20, 20)
    assert Textures(4).batch(0, 4, Fed())[0].shape == (4, 3, 20, 20)


def test_picture_is_the_image():
    data = Textures(5, seed=4)
    assert data.picture(3).mode == "RGB"
    assert np.array_equal(np.asarray(data.picture(3)), render(torch.tensor([3]), seed=4, size=64)[0].permute(1, 2, 0))
    assert data.picture(3, size=200).size == (200, 200)


def test_the_fingerprint_names_the_set():
    names = {
        Textures(**kw).fingerprint
        for kw in ({}, {"seed": 1}, {"offset": 1}, {"count": 5}, {"size": 65}, {"count": 10_000, "seed": 0})
    }
    assert len(names) == 5


def test_the_pictures_have_not_changed():
    """A picture that changes must raise VERSION; levels may differ by one between machines, so coarse sums are kept."""
    assert textures.VERSION == 1
    images = render(torch.arange(6), seed=0, size=32).float()
    assert images.mean((1, 2, 3)).tolist() == pytest.approx([153.39, 88.59, 183.86, 156.46, 89.49, 104.86], abs=0.3)


@pytest.mark.parametrize("size", [31, 257, 0])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(SpError, match=f"32 to 256 pixels for textures, got {size}"):
        Textures(size=size)
    with pytest.raises(SpError, match=f"got {size}"):
        render(torch.arange(1), seed=0, size=size)


def test_an_index_out_of_range_is_refused():
    with pytest.raises(SpError, match="texture 10 does not exist: choose an index from 0 to 9"):
        Textures(10).picture(10)
    with pytest.raises(SpError, match="count must be at least 1 texture, got 0"):
        Textures(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_same_pictures():
    indices = torch.arange(360)
    cpu, gpu = (render(indices, seed=0, size=64, device=device).cpu().int() for device in ("cpu", "cuda"))
    differing = (cpu - gpu).abs()
    assert float((differing > 1).float().mean()) < 1e-4  # only pixels exactly on a hard edge
    a, b = (textures._parameters(0, indices.to(device))[0] for device in ("cpu", "cuda"))
    assert all(torch.equal(a[name], b[name]) for name in a)
