"""What a checkpoint was found to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a checkpoint was found to be.

    Attributes:
        architecture: ``"torchvision:resnet18"``; "" when only the weights are known.
        confidence: ``"exact"``, ``"likely"`` or ``"weights-only"``.
        differences: sentences on what does not fit (empty when exact).
        also: other architectures that fit exactly as well.
        classes: how many outputs the head has; 0 when there is no head.
        channels: how many channels the first convolution takes.
        small: whether the stem is that of a network for small images, which is a guess.
        changed: whether the module is the architecture with other weights than its constructor makes, so that its name
            does not build it again.
    """

    architecture: str
    confidence: str
    differences: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    classes: int = 0
    channels: int = 3
    small: bool = False
    changed: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences a person should read about this verdict."""
        if not self.also:
            return self.differences
        return (
            f"{' and '.join(self.also)} fit these weights as well; {self.architecture} was taken.",
            *self.differences,
        )
