"""Names of devices, latent models, presets and other choices, for all who offer or check them."""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda"]
Latents = Literal["gaussian", "centers", "mapper", "real"]
Missing = Literal["keep", "drop", "refuse"]  # what becomes of missing cells
Size = Literal["quick", "standard"]  # of a training
Preset = Literal["quick", "standard", "paper"]  # sizes, and the paper's method as published

MISSING = "missing"  # what a missing cell is called among other values

DEVICES: tuple[str, ...] = get_args(Device)
LATENTS: tuple[str, ...] = get_args(Latents)
