"""Parametrisations reproduce pictures and obey their laws; transforms move pixels where they should."""

import math

import pytest
import torch

from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.synthesis import AscentSettings, ascend, transforms
from sp_core.synthesis.loop import Adam
from sp_core.synthesis.parameterizations import Colours, Fourier, Maco, Pixel, falloff, natural_magnitude
from sp_core.synthesis.transforms import RandomAffine, resample

KINDS = [Pixel, Fourier, Maco]
SIZES = [(12, 16), (9, 15), (16, 11)]


def photo(n=1, size=(12, 16), seed=0):
    """Smooth, coloured, and with correlated channels."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(n, 3, 4, 4, generator=generator)
    rough = rough.mean(1, keepdim=True) * 0.7 + rough * 0.3
    return torch.nn.functional.interpolate(rough, size, mode="bilinear")


def start(kind, n=1, size=(12, 16), colours=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return kind.noise((n, 3, *size), colours or Colours.usual(3), generator, None)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_of_reproduces_a_picture(kind, size):
    picture = photo(size=size)
    for colours in (Colours.usual(3), Colours.plain(3), Colours.of(photo(4))):
        made = kind.of(picture, colours).images()
        assert made.shape == picture.shape
        assert (made - picture).abs().mean() < 1e-3


@pytest.mark.parametrize("kind", [Pixel, Fourier])
def test_descent_reproduces_a_picture(kind):
    picture, parts = photo(), start(kind)
    adam = Adam(parts.parameters, 0.05)
    for _ in range(300):
        loss = (parts.images() - picture).square().sum()
        adam.step(torch.autograd.grad(loss, parts.parameters))
    assert (parts.images() - picture).abs().mean() < 0.01


def test_descent_with_maco_reproduces_a_picture_of_its_magnitudes():
    picture = photo(size=(8, 8))
    parts = Maco.of(picture, Colours.usual(3))
    with torch.no_grad():
        parts.parameters[0].add_(0.5 * torch.randn(parts.parameters[0].shape))
    assert (parts.images() - picture).abs().mean() > 0.03
    adam = Adam(parts.parameters, 0.05)
    for _ in range(400):
        loss = (parts.images() - picture).square().sum()
        adam.step(torch.autograd.grad(loss, parts.parameters))
    assert (parts.images() - picture).abs().mean() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_in_range_whatever_the_parameters(kind):
    parts = start(kind, n=2)
    with torch.no_grad():
        parts.parameters[0].mul_(1e4)
    images = parts.images()
    assert torch.isfinite(images).all() and images.min() >= 0 and images.max() <= 1


def latent_spectrum(parts, colours):
    return torch.fft.rfft2(colours.to_latent(parts.images().detach().double()), norm="ortho").abs()


def test_fourier_noise_falls_as_one_over_f():
    """The slope of log amplitude against log frequency, by least squares, is -1; of pixel noise it is 0."""
    colours, size = Colours.plain(3), (64, 64)
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None])
    inside = (frequency > 0.03) & (frequency < 0.45)
    for kind, slope in ((Fourier, -1), (Maco, -1), (Pixel, 0)):
        amplitude = latent_spectrum(start(kind, n=8, size=size, colours=colours), colours).mean((0, 1))
        x, y = frequency[inside].double().log(), amplitude[inside].log()
        found = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        assert abs(found - slope) < 0.1, f"{kind.__name__}: {found}"


def test_falloff_by_hand():
    scale = falloff((4, 4))
    assert scale.shape == (4, 3)
    assert torch.allclose(scale[0], torch.tensor([4.0, 4.0, 2.0]))  # f = 0 counts as 1/4, then 1/4, 1/2
    assert torch.allclose(scale[1, 1], torch.tensor(4 / math.sqrt(2)))


def test_fourier_noise_is_lucids():
    """irfft2(spectrum · 1/max(f, 1/max(w, h)) · √(w·h)) / 4 with TensorFlow's 1/(w·h) in the inverse, sd 0.01."""
    parts = start(Fourier, size=(6, 10), colours=Colours.plain(3))
    spectrum = torch.view_as_complex(parts.parameters[0].detach()) * falloff((6, 10)) * math.sqrt(60) / 4
    expected = torch.sigmoid(torch.fft.irfft2(spectrum, s=(6, 10)))
    assert torch.allclose(parts.images(), expected, atol=1e-6)
    assert parts.parameters[0].std().item() == pytest.approx(0.01, rel=0.2)


def test_colours_are_a_square_root_of_the_covariance():
    images = photo(6)
    pixels = images.double().transpose(0, 1).flatten(1)
    covariance = torch.cov(pixels, correction=0)
    colours = Colours.of(images)
    found = colours.matrix.double() @ colours.matrix.double().T
    assert torch.allclose(found / found.trace(), covariance / covariance.trace(), atol=1e-6)
    assert torch.allclose(colours.mean.double(), pixels.mean(1), atol=1e-6)
    assert colours.matrix.norm(dim=0).max().item() == pytest.approx(1)
    assert colours.matrix.norm(dim=0)[0] == colours.matrix.norm(dim=0).max(), "strongest axis first"


def test_noise_has_the_examples_colours():
    """The law: the covariance of the made colours, before the sigmoid, is proportional to that of the examples."""
    examples = photo(6)
    colours = Colours.of(examples)
    images = start(Fourier, n=16, size=(32, 32), colours=colours).images().detach()
    made = torch.cov(torch.logit(images.double()).transpose(0, 1).flatten(1))
    wanted = torch.cov(examples.double().transpose(0, 1).flatten(1))
    assert torch.allclose(made / made.trace(), wanted / wanted.trace(), atol=0.05)
    plain = start(Fourier, n=16, size=(32, 32), colours=Colours.plain(3)).images().detach()
    naive = torch.cov(torch.logit(plain.double()).transpose(0, 1).flatten(1))
    assert not torch.allclose(naive / naive.trace(), wanted / wanted.trace(), atol=0.05)


def test_grey_examples_give_grey_pictures():
    grey = photo(4).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), input_size=(3, 16, 16))
    *_, final = ascend(net, "0:1", AscentSettings(steps=8), examples=grey)
    assert (final.images - final.images.mean(1, keepdim=True)).abs().max() < 0.02


def test_examples_of_one_colour_are_refused():
    net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), input_size=(3, 16, 16))
    with pytest.raises(SpError, match="all of one colour"):
        ascend(net, "0:1", examples=torch.full((3, 3, 8, 8), 0.5))


def test_maco_keeps_the_magnitudes_of_the_examples():
    examples = photo(5, (16, 16))
    net = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), input_size=(3, 16, 16))
    settings = AscentSettings(steps=12, parametrisation="maco")
    *_, final = ascend(net, "0:1", settings, examples=examples)
    colours = Colours.of(examples)
    held = natural_magnitude((3, 16, 16), colours, examples)
    found = torch.fft.rfft2(colours.to_latent(final.images), norm="ortho").abs()[0]
    inner = (slice(None), slice(1, 8), slice(1, 8))  # frequencies without a mirror image of their own
    ratio = found[inner] / held[inner]
    assert ratio.median() == pytest.approx(1, abs=0.02)


# --- transforms ---


def test_nothing_to_do_is_the_identity():
    image = torch.rand(2, 3, 9, 13)
    assert torch.allclose(resample(image), image, atol=1e-5)
    assert transforms.usual((32, 32), 0) == ()


def test_whole_pixel_shifts_move_pixels():
    image = torch.rand(1, 2, 9, 13)
    moved = resample(image, (2, -3))
    assert torch.allclose(moved[:, :, 2:, :-3], image[:, :, :-2, 3:], atol=1e-5)
    assert torch.allclose(moved[:, :, 1, :-3], image[:, :, 0, 3:], atol=1e-5), "outside is the mirror image"


@pytest.mark.parametrize(("degrees", "quarters"), [(90, -1), (-90, 1), (180, 2)])
def test_quarter_turns(degrees, quarters):
    image = torch.rand(1, 1, 8, 8)
    assert torch.allclose(resample(image, degrees=degrees), image.rot90(quarters, (2, 3)), atol=1e-5)


def test_zoom_enlarges_about_the_centre():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 6] = 1  # two right of the centre
    moved = resample(image, zoom=2)[0, 0]
    assert moved.argmax().item() == 4 * 9 + 8  # four right of it


def test_a_turned_non_square_picture_keeps_its_shapes():
    """A disc turned by 30° is the same disc: the two axes are turned in pixels, not in widths and heights."""
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
    disc = (1 - (torch.hypot(y, x) / 15)).clamp(0)[None, None]
    assert (resample(disc, degrees=30) - disc).abs().max() < 0.03


def test_shift_and_turn_together():
    """First about the centre, then moved: the centre lands exactly where the shift says."""
    image = torch.zeros(1, 1, 21, 31)
    image[0, 0, 10, 15] = 1
    assert resample(image, (3, -4), 1.0, 90)[0, 0].argmax().item() == 13 * 31 + 11


def test_random_affine_stays_in_its_range_and_follows_its_generator():
    image = torch.zeros(1, 1, 33, 33)
    image[0, 0, 16, 16] = 1
    affine, generator = RandomAffine(3, 0, 0), torch.Generator().manual_seed(0)
    found = [divmod(affine(image, generator).argmax().item(), 33) for _ in range(100)]
    offsets = [(y - 16, x - 16) for y, x in found]
    assert max(max(abs(y), abs(x)) for y, x in offsets) == 3 and len(set(offsets)) > 20
    again = torch.Generator().manual_seed(0)
    assert [divmod(affine(image, again).argmax().item(), 33) for _ in range(100)] == found


def test_the_shift_follows_the_size():
    assert transforms.usual((224, 300))[0].jitter == 8
    assert transforms.usual((32, 32))[0].jitter == pytest.approx(32 / 28)
    assert transforms.usual((224, 224), 0.5)[0] == RandomAffine(4, 0.05, 5)


def test_a_small_picture_survives_the_usual_transforms():
    """At 32 pixels the average picture of 200 usual transforms still looks like the picture."""
    picture, generator = photo(size=(32, 32)), torch.Generator().manual_seed(0)
    (affine,) = transforms.usual((32, 32))
    mean = torch.stack([affine(picture, generator) for _ in range(200)]).mean(0)
    seen = torch.corrcoef(torch.stack([mean.flatten(), picture.flatten()]))[0, 1]
    assert seen > 0.95
