from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from cases import lossy_table, mixed_table, settings

from scgan_train.run_folder import Run
from scgan_train.training.stages import train

torch.set_num_threads(int(os.environ.get("SCGAN_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(mixed_table(), settings(), tmp_path_factory.mktemp("runs") / "mixed", "mixed.csv")


@pytest.fixture(scope="session")
def mixed_bundle(mixed_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scgan_train.exporting.exporter import export

    return export(mixed_run, tmp_path_factory.mktemp("bundles") / "mixed")


@pytest.fixture(scope="session")
def lossy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose latent has fewer dimensions than its rows."""
    from scgan_train.exporting.exporter import export

    folder = tmp_path_factory.mktemp("lossy")
    config = settings(
        encoder={"latent_dim": 1, "steps": "auto"},
        mapper={"steps": 300},
        decoder={"steps": 0, "widths": [16], "warm_steps": 300},
    )
    return export(train(lossy_table(3000, 0), config, folder / "run", "lossy"), folder / "bundle")
