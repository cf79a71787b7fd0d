"""The graph of a network in as few boxes as a drawing can hold, which it shows or opens.

What is not worth a box of its own is written into the box before it, equal boxes in a row are one, and modules are
opened level by level while there is room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sp_core.errors import SpError
from sp_core.flow import INPUT, Flow


@dataclass(frozen=True)
class Block:
    """One box of a drawing: a step, or a whole module call, or several equal ones in a row.

    Attributes:
        name: of the (first) node or module call.
        kind: its class.
        words: what stands in the box.
        after: words of what follows it directly and is written into the same box (``"BN"``, ``"ReLU"``).
        shape: of its output; ``()`` where it has several.
        inputs: places of the blocks that feed it.
        whole: whether it is a module call with parts, which can be opened.
        times: how many equal ones in a row it stands for.
        members: names of all nodes in it.
    """

    name: str
    kind: str
    words: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    whole: bool = False
    times: int = 1
    after: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


QUIET = ("BN", "ReLU", "ReLU6", "Dropout", "Identity", "Flatten", "LRN", "tanh", "sigmoid", "Tanh", "Sigmoid", "GELU",
         "SiLU", "ELU", "Softmax", "LogSoftmax", "softmax", "log softmax", "leaky ReLU", "LeakyReLU", "LayerNorm",
         "GroupNorm", "Hardswish", "Hardsigmoid")  # fmt: skip
WIDE = 3  # boxes side by side, likewise
MOST = 30  # boxes of one drawing, before it shows whole modules instead of their parts


def blocks(graph: Flow, inside: str = "", most: int = MOST) -> tuple[Block, ...]:
    """The graph, or the part of it in the module call ``inside``, in about ``most`` boxes.

    Modules are opened level by level while the boxes are few enough. What is not worth a box of its own (normalisation,
    activation, dropout) is written into the box before it; equal boxes in a row become one.

    Raises:
        SpError: there is no module call of that name.

    >>> from sp_core.flow import Node
    >>> nodes = (Node("input", "input", "input", (3, 4, 4)), Node("0", "Conv2d", "3×3 conv, 8", (8, 4, 4), (), (0,)),
    ...          Node("1", "ReLU", "ReLU", (8, 4, 4), (), (1,)))
    >>> [(block.words, block.after) for block in blocks(Flow(nodes))]
    [('input', ()), ('3×3 conv, 8', ('ReLU',))]
    """
    if inside and inside not in graph.containers:
        raise SpError(f"'{inside}' is not a part of this network with layers in it; choose one from the list.")
    chosen = [i for i, node in enumerate(graph.nodes) if not inside or inside in node.inside]
    deepest = max(len(graph.nodes[i].inside) for i in chosen) + 1
    start = 1 + (graph.nodes[chosen[0]].inside.index(inside) if inside else -1)
    found = _at_depth(graph, chosen, start)
    for depth in range(start + 1, deepest + 1):
        deeper = _at_depth(graph, chosen, depth)
        if len(deeper) > most or widest(deeper) > max(WIDE, widest(found)):
            break
        found = deeper
    return found


def rows(made: tuple[Block, ...]) -> list[int]:
    """The row of each block: the length of the longest way to it; what comes in stands just above its reader.

    >>> rows((Block("a", "", "", (), ()), Block("b", "", "", (), (0,)), Block("c", "", "", (), (0, 1))))
    [0, 1, 2]
    """
    found = [0] * len(made)
    for i, block in enumerate(made):
        found[i] = 1 + max((found[source] for source in block.inputs), default=-1)
    for i, block in enumerate(made):
        readers = [found[j] for j, other in enumerate(made) if i in other.inputs]
        if not block.inputs and readers:
            found[i] = max(0, min(readers) - 1)
    return found


def widest(made: tuple[Block, ...]) -> int:
    """How many blocks stand side by side at most."""
    found = rows(made)
    return max((found.count(row) for row in set(found)), default=0)


def _at_depth(graph: Flow, chosen: list[int], depth: int) -> tuple[Block, ...]:
    """The chosen nodes with those in the same module call at ``depth`` in one block, quiet ones merged, runs folded."""
    place: dict[int, int] = {}
    at: dict[str, int] = {}
    made: list[Block] = []
    before: dict[int, int] = {}  # a node outside to its block: what comes in
    for i in chosen:
        node = graph.nodes[i]
        whole = len(node.inside) > depth
        name = node.inside[depth] if whole else node.name
        for source in node.inputs:
            if source not in place and source not in before:
                before[source] = len(made)
                feeding = graph.nodes[source]
                made.append(Block(f"from {feeding.name}", INPUT, f"from {feeding.name}", feeding.shape, ()))
        fed = {place.get(source, before.get(source, -1)) for source in node.inputs}
        if name in at:
            k = at[name]
            own = made[k]
            made[k] = replace(own, inputs=tuple(sorted({*own.inputs, *fed} - {k})), members=(*own.members, node.name))
        else:
            k = at[name] = len(made)
            kind, shape = graph.containers[name] if whole else (node.kind, node.shape)
            words = kind if whole else node.words
            made.append(Block(name, kind, words, shape, tuple(sorted(fed)), whole, members=(node.name,)))
        place[i] = k
    words_of = {node.name: node.words for node in graph.nodes}
    return _folded(_merged([_opened(block, words_of) for block in made]), words_of)


def _opened(block: Block, words: dict[str, str]) -> Block:
    """A module call that holds one step and its activations is that step."""
    steps = [name for name in block.members if words[name] not in QUIET]
    if not block.whole or len(steps) != 1:
        return block
    after = tuple(words[name] for name in block.members if name != steps[0])
    return replace(block, name=steps[0], kind=words[steps[0]], words=words[steps[0]], after=after, whole=False)


def _followers(made: list[Block]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {i: [] for i in range(len(made))}
    for i, block in enumerate(made):
        for source in block.inputs:
            found[source].append(i)
    return found


def _renumbered(made: list[Block], into: dict[int, int]) -> list[Block]:
    """Blocks without those that went ``into`` another; inputs follow."""

    def end(i: int) -> int:
        while i in into:
            i = into[i]
        return i

    kept = [i for i in range(len(made)) if i not in into]
    number = {i: k for k, i in enumerate(kept)}
    return [
        replace(made[i], inputs=tuple(sorted({number[end(source)] for source in made[i].inputs} - {number[i]})))
        for i in kept
    ]


def _merged(made: list[Block]) -> list[Block]:
    """Normalisations and activations in the box of what they follow, where nothing else reads that."""
    into: dict[int, int] = {}
    followers = _followers(made)
    for i, block in enumerate(made):
        if block.words not in QUIET or len(block.inputs) != 1:
            continue
        (source,) = block.inputs
        if followers[source] != [i] or made[source].kind == INPUT:
            continue
        while source in into:
            source = into[source]
        own = made[source]
        made[source] = replace(
            own, after=(*own.after, block.words), shape=block.shape, members=(*own.members, *block.members)
        )
        into[i] = source
    return _renumbered(made, into)


def _folded(made: list[Block], words: dict[str, str]) -> tuple[Block, ...]:
    """Equal boxes in a row, each read by the next alone, as one."""
    into: dict[int, int] = {}
    followers = _followers(made)
    inner = [tuple(words.get(name, name) for name in block.members) for block in made]
    for i, block in enumerate(made):
        if len(block.inputs) != 1:
            continue
        (source,) = block.inputs
        own = made[source]
        alike = (own.words, own.after, own.shape, inner[source]) == (block.words, block.after, block.shape, inner[i])
        if not alike or followers[source] != [i] or not block.shape:
            continue
        while source in into:
            source = into[source]
        if source == 0 or not made[source].inputs:
            continue
        own = made[source]
        made[source] = replace(own, times=own.times + 1, members=(*own.members, *block.members))
        into[i] = source
    return tuple(_renumbered(made, into))
