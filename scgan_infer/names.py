"""Names that are written once: what computes, and where latents for generation come from. Imports nothing heavy."""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda"]
Latents = Literal["gaussian", "centers", "mapper", "real"]
Preset = Literal["quick", "standard"]  # sizes of a training

DEVICES: tuple[str, ...] = get_args(Device)
LATENTS: tuple[str, ...] = get_args(Latents)
