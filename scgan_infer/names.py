"""Names of devices, latent models, presets and other choices, for all who offer or check them."""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda"]
Latents = Literal["gaussian", "centers", "mapper", "real"]
Missing = Literal["keep", "drop", "refuse"]  # what becomes of missing cells
Preset = Literal["quick", "standard"]  # sizes of a training

DEVICES: tuple[str, ...] = get_args(Device)
LATENTS: tuple[str, ...] = get_args(Latents)
