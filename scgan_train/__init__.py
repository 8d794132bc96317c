"""Train scgan models with PyTorch and export them to bundles of ONNX graphs.

    import scgan_train

    run = scgan_train.train("rows.csv", {"seed": 1, "encoder": {"steps": 1000}})
    scgan_train.export(run, "exported/rows")
    rows = scgan_train.SCGAN(preset="quick").fit(frame).sample(1000)

Importing this package does not import torch; the functions do.
"""

from __future__ import annotations

from scgan_train.api import export, inspect, train

TYPE_CHECKING = False  # what the command imports first imports nothing
if TYPE_CHECKING:
    from typing import Any

    from scgan_train.estimator import SCGAN

__all__ = ["SCGAN", "export", "inspect", "train"]


def __getattr__(name: str) -> Any:
    if name != "SCGAN":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scgan_train.estimator import SCGAN

    return SCGAN
