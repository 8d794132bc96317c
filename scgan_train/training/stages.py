"""Training from rows to a run: transform, encoder, clusters, mapper, decoder, each saved when it is finished.

    x --transform--> y --encoder--> eps --clusters--> label --mapper--> g_label(w) ~ eps --decoder--> y

Every stage draws from its own stream of the run's seed, so its result does not depend on where a training resumed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from scgan_infer.columns import Table
from scgan_infer.errors import DataError, DeviceError, UsageError
from scgan_train import clusters as clustering
from scgan_train.clusters import Clusters
from scgan_train.config import Config
from scgan_train.decoder import Decoder, DecoderStage
from scgan_train.encoder import Encoder
from scgan_train.head import LatentModel, RealLatents
from scgan_train.maps import MAPS, choose, latent_model, resolved
from scgan_train.maps.base import Mapper
from scgan_train.training import distributed, guards
from scgan_train.training.loop import fit, generator_for
from scgan_train.training.progress import Progress
from scgan_train.training.run import Run
from scgan_train.transform import Transform

HELD_OUT = 0.05
MOST_HELD_OUT = 10_000
SMOOTH = 256  # draws that stand for a cluster of few rows


def device_of(name: str) -> torch.device:
    """Return the device to train on.

    Raises:
        DeviceError: if `cuda` is asked for and torch has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda: torch finds no CUDA device here; use --device cpu, or see `scgan doctor`"
        )
    local = distributed.local()
    return torch.device(name) if name == "cpu" or local is None else torch.device(name, local)


def train(
    table: Table, config: Config, path: Path, source: str = "rows", *, resume: bool = False
) -> Run:
    """Run the three stages on a table and return the finished run.

    Args:
        table: the rows; some are held out of all stages.
        config: what to train.
        path: the run folder, made here; with `resume`, an existing one to finish.
        source: what the run says of where the rows came from.
        resume: go on from the last finished stage or checkpoint.

    Raises:
        DataError: fewer rows than clusters, or other rows than those that the run began with.
        DeviceError: the device asked for is not there.
        UsageError: the folder is taken, or a setting does not fit the data.
        TrainingError: a loss stopped being finite.
    """
    device = device_of(config.device)
    choose(config.mapper.kind, 1)
    _check_enough(table, config, source)
    path = distributed.agreed(path)
    if resume:
        run = _resumed(path, table, config)
    elif distributed.rank() == 0:
        run = _created(path, table, config, source)
    distributed.barrier()
    if distributed.rank() > 0:
        run = Run.load(path)
    with _one_thread(), Progress(run) as progress:
        return _stages(table, config, run, device, progress)


def _stages(
    table: Table, config: Config, run: Run, device: torch.device, progress: Progress
) -> Run:
    kept, held = _split(len(table), config.seed)
    values = torch.from_numpy(table.values)
    if not run.finished("transform"):
        with _stage(run, "transform"):
            run.save_held_out(values[held].numpy())
            run.save_transform(Transform.fit(Table(table.columns, values[kept].numpy())))
    transform = run.load_transform()
    with torch.no_grad():
        y = transform(
            transform.dequantise(values[kept], generator_for(config.seed, "dequantise"))
        ).to(device)

    if not run.finished("encoder"):
        with _stage(run, "encoder"):
            encoder = Encoder(
                transform.dims, config.encoder, generator_for(config.seed, "encoder")
            ).to(device)
            fit(
                "encoder",
                encoder,
                lambda _: encoder.phases(y),
                config.seed,
                progress.stage("encoder"),
            )
            encoder.calibrate(y)
            guards.check_encoder(_latents(encoder, y), y)
            run.save_encoder(encoder)
    encoder = run.load_encoder(transform.dims).to(device)
    latents = _latents(encoder, y)

    if not run.finished("clusters"):
        with _stage(run, "clusters"), progress.busy("clusters"):
            named = [j for j, column in enumerate(table.columns) if column.kind == "category"]
            categories = table.values[kept.numpy()][:, named].astype(np.int64) if named else None
            found, labels, note = _clusters(latents, categories, config)
            run.facts["clusters"] = note
            run.save_clusters(found, labels)
    found, labels = run.load_clusters()

    if not run.finished("mapper"):
        with _stage(run, "mapper"):
            again = latents.repeat(len(labels), 1)
            model = _mapper(again, labels.flatten().to(device), found, config, progress)
            names = [name for name, kind in MAPS.items() if type(model.ensemble) is kind]
            run.facts["map"] = names[0] if names else ""
            run.save_mapper(model)
    model = run.load_mapper(found).to(device)

    if not run.finished("decoder"):
        with _stage(run, "decoder"):
            generator = generator_for(config.seed, "decoder")
            decoder = Decoder(latents.shape[1], transform.dims, config.decoder, generator)
            stage = DecoderStage(decoder, model, transform.dims, generator).to(device)
            fit(
                "decoder",
                stage,
                lambda _: stage.phases(latents, y),
                config.seed,
                progress.stage("decoder"),
            )
            guards.check_decoder(_mapped(decoder.reconstruct, latents), y)
            run.save_decoder(decoder)
    run.load_decoder(latents.shape[1], transform.dims)
    run.load_held_out()
    return run


def _clusters(
    latents: Tensor, categories: NDArray[np.int64] | None, config: Config
) -> tuple[Clusters, Tensor, str]:
    if config.latents == "gaussian":
        rows = latents.cpu().double()
        covariance = torch.cov(rows.T).reshape(rows.shape[1], -1) + 1e-9 * torch.eye(rows.shape[1])
        factor = torch.linalg.cholesky(covariance).float()
        one = Clusters(torch.ones(1), rows.mean(0, keepdim=True).float(), factor[None], "em")
        return one, torch.zeros(1, len(rows), dtype=torch.int64), "one Gaussian"
    e, settings = latents.shape[1], config.clusters
    kind, generator = choose(config.mapper.kind, e), generator_for(config.seed, "clusters")
    most = kind.most_clusters(e)

    def once() -> tuple[Clusters, Tensor, str]:
        return clustering.fit(latents, settings, generator, most, categories)

    fits, times = [once()], settings.fits
    times = 1 if times == "auto" else times
    fits += [once() for _ in range(times - 1)]
    clusters, labels, notes = zip(*fits, strict=True)
    return *clustering.overlay(clusters, labels), "; another fit: ".join(notes)


def _mapper(
    latents: Tensor, labels: Tensor, found: Clusters, config: Config, progress: Progress
) -> LatentModel:
    generator = generator_for(config.seed, "mapper")
    if config.latents == "real":
        return RealLatents.of(latents, labels, generator)
    settings = resolved(config.mapper, latents.shape[1], len(latents))
    model = latent_model(config.latents, found, settings, generator).to(latents.device)
    if isinstance(model.ensemble, Mapper):
        mapper = model.ensemble
        latents, labels = _smooth(latents, labels, found, config.clusters.min_rows, generator)
        fit(
            "mapper",
            mapper,
            lambda g: mapper.phases(latents, labels, g),
            config.seed,
            progress.stage("mapper"),
        )
    return model


def _smooth(
    latents: Tensor, labels: Tensor, found: Clusters, least: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Put draws of its Gaussian in place of a cluster's rows where they are few: a map would learn them by heart."""
    few = torch.nonzero(torch.bincount(labels, minlength=len(found)).cpu() < least).squeeze(1)
    if not len(few):
        return latents, labels
    drawn = torch.randn(len(few), SMOOTH, latents.shape[1], generator=generator)
    made = found.means[few].unsqueeze(1) + drawn @ found.factors[few].mT
    keep = ~torch.isin(labels, few.to(labels.device))
    again = few.repeat_interleave(SMOOTH).to(labels)
    return torch.cat([latents[keep], made.flatten(0, 1).to(latents)]), torch.cat(
        [labels[keep], again]
    )


def _latents(encoder: Encoder, y: Tensor) -> Tensor:
    return _mapped(encoder, y)


@torch.no_grad()
def _mapped(network: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(rows, 65536)])


def _split(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return which rows train and which are held out: 5 %, at most 10,000, at least one, none of a single row."""
    order = torch.randperm(n, generator=generator_for(seed, "split"))
    held = min(MOST_HELD_OUT, max(1, int(HELD_OUT * n)), n - 1)
    return order[held:].sort().values, order[:held].sort().values


def _check_enough(table: Table, config: Config, source: str) -> None:
    wanted = config.clusters.k if isinstance(config.clusters.k, int) else 1
    if len(table) - 1 < max(wanted, 2):
        raise DataError(
            f"{source}: {len(table)} rows are too few for {wanted} clusters; give more rows or --clusters"
        )


def _created(path: Path, table: Table, config: Config, source: str) -> Run:
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        raise UsageError(f"--out {path} exists; go on with --resume, or choose another name")
    new = path.with_name(f".{path.name}.new")
    run = Run(
        new, config, source, table.columns, {"rows": len(table), "sha256": table.fingerprint()}
    )
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        run.save()
        new.rename(path)
    except OSError as error:
        raise DataError(
            f"can't make the run folder {path}: {error.strerror}; choose another --out"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    run.path = path
    return run


def _resumed(path: Path, table: Table, config: Config) -> Run:
    run = Run.load(path)
    if run.facts.get("sha256") != table.fingerprint():
        raise DataError(
            f"{path} was begun with other rows ({run.source}); give the same data, or train anew"
        )
    if run.config != config:
        raise UsageError(
            f"{path} was begun with other settings (see its config.toml); leave them out, or train anew"
        )
    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: networks this small take twice as long on two, and much longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@contextmanager
def _stage(run: Run, name: str) -> Iterator[None]:
    """Time a stage and record it as finished if it ends well."""
    began = time.perf_counter()
    yield
    run.facts.setdefault("seconds", {})[name] = round(time.perf_counter() - began, 3)
    run.save()
    if distributed.rank() == 0:
        (run.path / "checkpoint.safetensors").unlink(missing_ok=True)
    distributed.barrier()
