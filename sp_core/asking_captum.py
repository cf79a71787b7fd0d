"""How each attribution method is put to captum: on a private copy, with the settings of :mod:`sp_core.methods`.

captum is used as it is meant to be, on a module that takes pixels in [0, 1] and returns the target's value; references,
steps, noise, windows and layers are those of ours. DeepLift and LRP run in float64, as ours do or may.

One call at a time: captum warns of its own hooks, and Python can silence warnings for the whole process only.
"""

from __future__ import annotations

import copy
import textwrap
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sp_core.capture import capture
from sp_core.deep_lift import in_float64
from sp_core.errors import SpError
from sp_core.methods import BATCH, Job, cam_layer, window_of
from sp_core.network import Network
from sp_core.targets import Aim, pick

NAMES = {
    "gradient": "Saliency",
    "deconvnet": "Deconvolution",
    "guided": "GuidedBackprop",
    "integrated_gradients": "IntegratedGradients",
    "deep_lift": "DeepLift",
    "smoothgrad": "NoiseTunnel(Saliency)",
    "grad_cam": "LayerGradCam",
    "guided_grad_cam": "GuidedGradCam",
    "occlusion": "Occlusion",
    "lrp": "LRP",
}
"""Our methods by captum's names; it has each of them."""
_turn = threading.Lock()


@dataclass(frozen=True)
class Found:
    """A map ``[1, c or 1, h, w]``, its sum minus what captum expects of it, and notes; nothing where captum raised."""

    map: Tensor | None = None
    gap: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def expected(self) -> float | None:
        """What captum expects the map to add up to."""
        return None if self.map is None or self.gap is None else float(self.map.double().sum()) - self.gap


def ask(job: Job, method: str, settings: dict[str, Any]) -> tuple[Found, str | None]:
    """What captum answers, or nothing and what it raised, in its own words.

    Raises:
        SpError: the question has no answer here.
    """
    with _turn, warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
        warnings.filterwarnings("ignore", module=r"captum\.")  # only its own: another thread may see this filter
        try:
            found = _ASK[method](job, **settings)
        except SpError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever captum's hooks and the network make of each other
            words = textwrap.shorten(str(error), 200, placeholder=" …")
            return Found(), f"{type(error).__name__}: {words}" if words else f"{type(error).__name__}."
    return replace(found, map=None if found.map is None else found.map.detach()), None


class _Aimed(nn.Module):
    """What captum is given: pixels ``[m, c, h, w]`` in, the target's values ``[m, 1]`` out, on a copy of its own."""

    def __init__(self, net: Network, aim: Aim, prepare: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.aim, self.prepare = net.clone(), aim, prepare or net.normalise

    def forward(self, images: Tensor) -> Tensor:
        inputs = self.prepare(images)
        inputs = inputs.clone() if inputs is images else inputs  # an in-place first layer may not touch the images
        layer, aim = self.aim.layer, self.aim.times(len(images))
        found = self.network(inputs) if layer is None else capture(self.network, inputs, [layer])[layer]
        return pick(found, aim)[0][:, None]


def _wanted(image: Tensor) -> Tensor:
    return image.clone().requires_grad_()  # captum warns where it has to ask for gradients itself


def _rule(method: str, **more: Any) -> Callable[[Job], Found]:
    def ask(job: Job) -> Found:
        from captum import attr

        way = getattr(attr, NAMES[method])(_Aimed(job.net, job.aim))
        return Found(way.attribute(_wanted(job.image), target=0, **more))

    return ask


def _integrated_gradients(job: Job, *, steps: int, baseline: str | float) -> Found:
    from captum.attr import IntegratedGradients

    found, gap = IntegratedGradients(_Aimed(job.net, job.aim)).attribute(
        _wanted(job.image),
        job.baseline(baseline),
        target=0,
        n_steps=int(steps),
        method="gausslegendre",
        internal_batch_size=BATCH,
        return_convergence_delta=True,
    )
    return Found(found, float(gap.detach()))


def _deep_lift(job: Job, *, baseline: str | float) -> Found:
    from captum.attr import DeepLift

    wide = job.net if job.net.device.type == "mps" else in_float64(job.net)  # which has no float64
    image, start = (x.to(wide.check_images(x)) for x in (job.image, job.baseline(baseline)))
    way = DeepLift(_Aimed(wide, job.aim))
    found, gap = way.attribute(_wanted(image), start, target=0, return_convergence_delta=True)
    return Found(found, float(gap.detach()))


def _smoothgrad(job: Job, *, samples: int, noise: float, seed: int) -> Found:
    from captum.attr import NoiseTunnel, Saliency

    with _Noise(int(seed)):
        found = NoiseTunnel(Saliency(_Aimed(job.net, job.aim))).attribute(
            _wanted(job.image),
            nt_type="smoothgrad",
            nt_samples=int(samples),
            nt_samples_batch_size=BATCH,
            stdevs=float(noise) * float(job.image.max() - job.image.min()),
            target=0,
            abs=False,
        )
    note = "captum is given our noise here; with noise of its own the two are equal in distribution only."
    return Found(found, None, (note,))


class _Noise(TorchFunctionMode):
    """Gives ``torch.normal`` a seed, in this thread only: captum draws from the generator that all threads share."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.normal:
            return func(*args, **(kwargs or {}))
        mean, spread = args
        return mean + spread * torch.randn(spread.shape, generator=self.generator).to(spread)


def _cam(job: Job, *, layer: str | None) -> Found:
    from captum.attr import LayerAttribution, LayerGradCam

    model, part, notes = _at_layer(job, layer)
    found = LayerGradCam(model, part).attribute(_wanted(job.image), target=0, relu_attributions=True)
    size = tuple(job.image.shape[2:])
    return Found(LayerAttribution.interpolate(found, size, "bilinear"), None, notes)


def _guided_cam(job: Job, *, layer: str | None) -> Found:
    from captum.attr import GuidedGradCam

    model, part, notes = _at_layer(job, layer)
    found = GuidedGradCam(model, part).attribute(_wanted(job.image), target=0, interpolate_mode="bilinear")
    return Found(found, None, notes)


def _at_layer(job: Job, layer: str | None) -> tuple[_Aimed, nn.Module, tuple[str, ...]]:
    """The model, its part that Grad-CAM looks at, and a note where that runs several times."""
    chosen = job.net.layer_with_units(layer or cam_layer(job.net, job.aim))
    if not chosen.is_map:
        raise SpError(f"Grad-CAM needs a layer with positions; {chosen.name} puts out a vector.")
    model = _Aimed(job.net, job.aim)
    calls = sum(other.module == chosen.module for other in job.net.layers)
    note = (
        f"{chosen.module} runs {calls} times; captum cannot choose between the calls, and ours looks at {chosen.name}."
    )
    return model, model.network.get_submodule(chosen.module), (note,) if calls > 1 else ()


def _occlusion(job: Job, *, window: int | None, stride: int | None, colour: str | float) -> Found:
    from captum.attr import Occlusion

    channels, height, width = job.image.shape[1:]
    window, stride = window_of(height, width, window, stride)
    found = Occlusion(_Aimed(job.net, job.aim)).attribute(
        job.image,
        (channels, window, window),
        strides=(channels, stride, stride),
        baselines=job.fill(colour).expand_as(job.image),
        target=0,
        perturbations_per_eval=BATCH,
    )
    cut = any((side - window) % stride for side in (height, width))
    note = (
        "captum cuts its last windows off at the right and lower edge, where ours are moved in: there the two differ."
    )
    return Found(found[:, :1], None, (note,) if cut else ())  # one value a pixel, the same in all channels


def _lrp(job: Job) -> Found:
    from captum.attr import LRP

    if job.aim.layer is not None:
        raise SpError("LRP starts from a class here; choose a class, or another method for a unit.")
    own = replace(job.net, module=copy.deepcopy(job.net.clone()))  # captum writes to the weights
    wide = own if own.device.type == "mps" else in_float64(own)
    inputs = wide.normalise(wide.check_images(job.image))  # relevance is that of what the network is fed
    model = _Aimed(wide, job.aim, prepare=lambda given: given)
    found, missing = LRP(model).attribute(_wanted(inputs), target=0, return_convergence_delta=True)
    return Found(
        found, -float(missing.detach()), ("captum counts the biases' share of the logit as missing; ours does not.",)
    )


_ASK: dict[str, Callable[..., Found]] = {
    "gradient": _rule("gradient", abs=False),
    "deconvnet": _rule("deconvnet"),
    "guided": _rule("guided"),
    "integrated_gradients": _integrated_gradients,
    "deep_lift": _deep_lift,
    "smoothgrad": _smoothgrad,
    "grad_cam": _cam,
    "guided_grad_cam": _guided_cam,
    "occlusion": _occlusion,
    "lrp": _lrp,
}
