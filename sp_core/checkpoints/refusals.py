"""What is said of files that hold more than tensors: what was seen in them, unopened, and how to save better."""

from __future__ import annotations

from sp_core.checkpoints.names import clean, find_state
from sp_core.checkpoints.pickled import Described
from sp_core.errors import SpError

_SHOWN = 5


def refusal(found: Described, name: str) -> SpError:
    """The sentence for a checkpoint that holds objects of foreign classes.

    They were listed, not made; but a network that is only known with its class has no names of weights to go by, and
    whoever opens such a file elsewhere runs what it asks for. So the file is to be saved as it should have been.
    """
    classes = found.foreign
    whole = any(item.startswith("torch.nn.modules") for item in classes)
    state = None if whole else find_state(found.content)
    what = "a whole Python model" if whole else "Python objects"
    if state is None:
        steps = (f"model = torch.load({name!r}, weights_only=False)", "state = model.state_dict()")
    else:
        keys = "".join(f"[{key if key.startswith('[') else repr(clean(key))}]" for key in state[1])
        steps = (f"content = torch.load({name!r}, weights_only=False)", f"state = content{keys}")
    return SpError(
        f"{name} holds {what} ({_listed(classes)}), and opening those could run code; save tensors only, "
        f"where {'their classes' if len(classes) > 1 else 'its class'} can be imported and if you trust the file, "
        "for the first line runs it:\n"
        f"    {steps[0]}\n    {steps[1]}\n    torch.save(state, 'weights.pth')\n"
        f"Then open weights.pth here. Seen in it without opening it: {contents(found)}."
    )


def plain_pickle(found: Described, name: str) -> SpError:
    """The sentence for a pickle that ``torch.save`` did not write."""
    wanted = _listed((*found.foreign, *found.mentioned)) or "plain values"
    return SpError(
        f"{name} is a Python pickle of {wanted} that torch.save did not write, and opening it could run code; "
        "save tensors only, with the program that made it:\n"
        "    state = model.state_dict()\n"
        "    torch.save(state, 'weights.pth')\n"
        "    # and open weights.pth here"
    )


def contents(found: Described) -> str:
    """The tensors of a file that was not opened: how many, of which types, how large.

    >>> contents(Described("zip", {}))
    'no tensors'
    """
    if not found.tensors:
        return "no tensors"
    kinds: dict[str, int] = {}
    sizes: dict[int, int] = {}
    for tensor in found.tensors:
        kind = str(tensor.dtype or "sparse").removeprefix("torch.")
        kinds[kind] = kinds.get(kind, 0) + 1
        sizes[id(tensor.storage)] = tensor.storage.size
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])[:4])
    total = sum(sizes.values())
    amount = f"{total / 1e6:.1f} MB" if total >= 1e5 else f"{total} bytes"
    largest = max(found.tensors, key=lambda tensor: tensor.numel())
    shape = "×".join(map(str, largest.shape)) or "a number"
    return f"{len(found.tensors)} tensors ({counted}) in {len(sizes)} storages of {amount}, the largest {shape}"


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(name[:80] for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
