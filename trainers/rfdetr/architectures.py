"""The sizes of RF-DETR that this trainer trains. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One size. A test compares every value with the package's own configuration class."""

    name: str
    model: str  # the package's class
    resolution: int  # its default input size
    block: int  # the input size must be a multiple of it: patch size times windows
    licence: str


KNOWN = {
    a.name: a
    for a in (
        Architecture("rf-detr-nano", "RFDETRNano", 384, 32, "Apache-2.0"),
        Architecture("rf-detr-small", "RFDETRSmall", 512, 32, "Apache-2.0"),
        Architecture("rf-detr-medium", "RFDETRMedium", 576, 32, "Apache-2.0"),
        Architecture("rf-detr-large", "RFDETRLarge", 704, 32, "Apache-2.0"),
    )
}
