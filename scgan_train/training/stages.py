"""Training from rows to a run: coordinates, encoder, clusters, mapper, decoder, each saved when finished.

    x --coordinates--> y --encoder--> eps --clusters--> label --mapper--> g_label(w) ~ eps --decoder--> y

Given columns c become numbers h, which stand before the latents where clusters and maps are fitted: (h, eps).

Every stage draws from its own stream of the run's seed, so its result does not depend on where a training resumed.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from scgan_infer.columns import Table
from scgan_infer.errors import DataError, UsageError
from scgan_train import clusters as clustering
from scgan_train.chain import Chain, ChainStage
from scgan_train.clusters import Assign, Clusters
from scgan_train.config import Config, constraints_of, resolve
from scgan_train.constraints import Constraint
from scgan_train.coordinates import Coordinates
from scgan_train.decoder import DecoderStage
from scgan_train.discrete import follows, least
from scgan_train.encoder import Encoder
from scgan_train.exporting.parts import Parts
from scgan_train.given import Conditions, Given, divide, part
from scgan_train.head import LatentModel, RealLatents, joined
from scgan_train.maps import latent_model
from scgan_train.maps.base import Mapper
from scgan_train.maps.flow import FlowMapper, GivenFlowStage
from scgan_train.margins import FEWEST, Margins
from scgan_train.training import distributed, guards
from scgan_train.training.loop import Phase, fit, generator_for
from scgan_train.training.progress import StageObserver
from scgan_train.training.run import Run, chain_of, locked
from scgan_train.watch import Watch

HELD_OUT = 0.05
MOST_HELD_OUT = 10_000
BLOCK, DRAWS = 4096, 24  # rows that are drawn at a time for margins, and how often
KEPT_BACK = 0.1  # share of the training rows that the decoder's width is chosen by
JUDGING = 2_000  # held-out rows that a training is watched on
SMOOTH = 256  # draws that stand for a cluster of few rows


def train(
    table: Table,
    config: Config,
    path: Path,
    source: str = "rows",
    *,
    resume: bool = False,
    force: bool = False,
    begin: Callable[[Sequence[Constraint]], None] = lambda constraints: None,
) -> Run:
    """Run the three stages on a table and return the finished run.

    Args:
        table: the rows; some are held out of all stages.
        config: what to train; it is resolved here.
        path: the run folder, made here; with `resume`, an existing one to finish.
        source: what the run says of where the rows came from.
        resume: go on from the last finished stage or checkpoint.
        force: remove a run that is in the folder, once nothing stands against the new one.
        begin: called with the constraints when nothing stands against the training any more.

    Raises:
        DataError: fewer rows than clusters, or other rows than those that the run began with.
        DeviceError: the device asked for is not there.
        UsageError: the folder is taken, another training is at work there, or a setting does not fit the data.
        TrainingError: a loss stopped being finite.
    """
    constraints = constraints_of(config, table)
    config = resolve(config, table, constraints)
    made, _ = divide(table.columns, config.given)
    # a sum of others may be where none was seen
    equal = {made[constraint.column] for constraint in constraints if not constraint.side}
    columns = (c.unwalled if j in equal else c for j, c in enumerate(table.columns))
    table = replace(table, columns=tuple(columns))
    _check_enough(table, config, source)
    path = distributed.broadcast_path(path)
    first = distributed.rank() == 0
    if first and not resume:
        _create(path, table, config, source, force)
    with locked(path) if first else nullcontext():
        distributed.barrier()
        run = _resumed(path, table, config) if resume else Run.load(path)
        begin(constraints)
        with _one_thread(), Watch(first) as watch:
            _Stages(table, constraints, run, watch).finish()
    return run


class _Stages:
    """The stages of one run; each is skipped where the run has it already."""

    def __init__(
        self, table: Table, constraints: Sequence[Constraint], run: Run, watch: Watch
    ) -> None:
        self.table, self.constraints, self.run, self.watch = table, constraints, run, watch
        self.config, self.seed = run.config, run.config.seed
        self.device = torch.device(self.config.device)
        if self.config.device == "cuda" and (local := distributed.local()) is not None:
            self.device = torch.device("cuda", local)
        kept, held = _split(len(table), self.seed)
        self.kept, self.held = kept.numpy(), held.numpy()  # a tensor of one is a number to numpy
        self.sizes: tuple[int, ...] = ()
        self.numbers: tuple[int, ...] = ()
        self.outcomes = torch.zeros(0, 0, dtype=torch.int64)
        self.held_y, self.held_outcomes = torch.zeros(0, 0), self.outcomes
        self.given: Given | None = None

    def finish(self) -> None:
        """Run what is not finished, and check that all of it can be read."""
        y = self.coordinates()
        latents = self.encoder(y)
        self.given = self.run.load_given()
        conditions = self._conditions(self.kept, np.random.default_rng([self.seed, 0xC0]))
        together = torch.cat([conditions.h, latents], 1)
        clusters, labels, settled = self.clusters(together, y)
        choices = joined(self.outcomes, labels)
        chain = self.head(joined(conditions.s, choices), conditions.h, clusters)
        model = self.mapper(settled, clusters, joined(conditions.s, choices), chain)
        self.decoder(latents, model, y)
        self.margins(model, y)
        self.figures()

    def coordinates(self) -> Tensor:
        """Return the coordinates [n, d'] of the training rows."""
        run, table = self.run, part(self.table, self.run.made)
        rows = table.values[self.kept]
        if not run.finished("coordinates"):
            with self._stage("coordinates"):
                run.save_held_out(self.table.values[self.held])
                tails = self.config.tails
                made = Coordinates.fit(table, self.kept, self.constraints, tails=tails)
                run.save_arrays("coordinates", made.state())
                if run.given:
                    given = Given.fit(part(self.table, run.given), self.kept)
                    run.save_arrays("given", given.state())
        coordinates = run.load_coordinates()
        self.sizes = tuple(step.size for step in coordinates.steps)
        named = [column.rules.named for column in coordinates.columns]
        self.numbers = tuple(
            0 if named[step.column] else len(step.numbers) for step in coordinates.steps
        )
        self.outcomes = torch.from_numpy(coordinates.choose(rows)).to(self.device)
        rng = np.random.default_rng([self.seed, 0xDE])
        y = coordinates.forward(rows, rng, jitter=True)
        held = table.values[self.held]
        self.held_y = self._tensor(coordinates.forward(held, np.random.default_rng(0)))
        self.held_outcomes = torch.from_numpy(coordinates.choose(held)).to(self.device)
        return self._tensor(y)

    def _tensor(self, y: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(y).to(self.device, torch.get_default_dtype())

    def _conditions(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Conditions:
        """Return what networks see of the given columns of some rows [n]."""
        h: NDArray[np.floating[Any]] = np.zeros((len(rows), 0))
        s = np.zeros((len(rows), 0), np.int64)
        if self.given is not None:
            c = self.table.values[rows][:, self.run.given]
            h, s = self.given.forward(c, rng), self.given.choose(c)
        return Conditions(self._tensor(h), torch.from_numpy(s).to(self.device))

    def encoder(self, y: Tensor) -> Tensor:
        """Return the latents [n, e] of coordinates [n, d']."""
        run, dims, seed = self.run, y.shape[1], self.seed
        if not run.finished("encoder"):
            with self._stage("encoder"):
                encoder = Encoder(dims, self.config.encoder, generator_for(seed, "encoder"))
                encoder = encoder.to(self.device)
                encoder.start(y)
                observer = StageObserver(run, self.watch, "encoder")
                batch = min(self.config.encoder.batch, len(y)) * distributed.size()
                few = self.held_y[:batch]
                few = few[: len(few) - len(few) % distributed.size()]  # as many for each process

                def held_out() -> float:
                    own = distributed.local_part(few)
                    loss = encoder.loss(own, generator_for(seed, "held out"))["info_nce"]
                    # as of so many rows
                    return float(distributed.mean(loss)) + math.log(batch / len(few))

                phases = judged(encoder.phases(y), held_out if len(few) else None)
                fit("encoder", encoder, lambda _: phases, seed, observer)
                encoder.calibrate(y)
                guards.check_encoder(_mapped(encoder, y), y)
                run.save_module("encoder", encoder)
        return _mapped(run.load_encoder(dims).to(self.device), y)

    def clusters(self, latents: Tensor, y: Tensor) -> tuple[Clusters, Tensor, Tensor]:
        """Return the clusters, the label [n], and what maps are trained on, of given numbers and latents [n, p + e]."""
        run, generator = self.run, generator_for(self.seed, "clusters")
        if not run.finished("clusters"):
            with self._stage("clusters"):
                self.watch.begin("clusters")
                clusters, labels, run.facts["clusters"] = clustering.fit(
                    latents,
                    self.config.clusters,
                    generator,
                    self.given.dims if self.given else 0,
                )
                settled = None
                if (bounds := self._bounds(y)) is not None and clusters.kind == "em":
                    settled, clusters, labels = clustering.settle(
                        latents, bounds, clusters, labels, generator
                    )
                run.save_clusters(clusters, labels, settled)
        clusters, labels, settled = run.load_clusters()
        settled = latents if settled is None else settled.to(latents)
        return clusters, labels.to(self.device), settled

    def _bounds(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return between which latents each row's lies, where numbers have an interval of scores."""
        run, coordinates = self.run, self.run.load_coordinates()
        plain = self.config.encoder.kind == "columns" and self.given is None
        if not plain or not coordinates.scored.any():
            return None
        encoder = run.load_encoder(coordinates.dims).to(self.device)
        made = self.table.values[self.kept][:, run.made]
        bounds = coordinates.bounds(made, y.cpu().numpy())
        low, high = (_mapped(encoder, torch.from_numpy(bound).to(y)) for bound in bounds)
        return low, high

    def head(self, choices: Tensor, numbers: Tensor, clusters: Clusters) -> Chain | None:
        """Return the chain that draws choices [n, r + h], given the first r and numbers [n, p].

        None where there are neither discrete values nor given columns.
        """
        run, seed = self.run, self.seed
        if not self.sizes and self.given is None:
            return None
        if not run.finished("head"):
            with self._stage("head"):
                used, back = _split(len(choices), seed, KEPT_BACK)
                choices, generator = choices.reshape(len(choices), -1), generator_for(seed, "head")
                chain = chain_of(self.sizes, clusters, self.given, generator)
                rows, held = ((choices[k], numbers[k]) for k in (used, back))
                chain = chain.to(self.device)
                stage = ChainStage(chain, rows, held, self.numbers, generator)
                observer = StageObserver(run, self.watch, "head")
                fit("head", stage, lambda _: stage.phases(), seed, observer)
                assert isinstance(stage.best, Chain)
                own = choices[:, :-1].cpu().numpy()
                sizes = [len(table) for table in stage.best.embeddings]
                known, tied = stage.best.known, follows(own, sizes, stage.best.known)
                for (step, other), table in tied.items():
                    stage.best.tie(step, other, torch.from_numpy(table))
                if self.config.constraints:
                    coordinates = run.load_coordinates()
                    alone = {step - known for step, _ in tied}
                    bounds = least(coordinates.steps, coordinates.columns, own[:, known:], alone)
                    for (step, other), table in bounds.items():
                        places = step + known, other + known
                        stage.best.tie(*places, torch.from_numpy(table), least=True)
                run.save_module("head", stage.best)
        loaded = run.load_head(self.sizes, clusters)
        return loaded and loaded.to(self.device)

    def mapper(
        self, latents: Tensor, clusters: Clusters, choices: Tensor, chain: Chain | None
    ) -> LatentModel:
        """Return the model that latents are drawn from for generation."""
        run, config, seed = self.run, self.config, self.seed
        if not run.finished("mapper"):
            with self._stage("mapper"):
                generator = generator_for(seed, "mapper")
                if config.latents == "real":
                    run.save_module("mapper", RealLatents.of(latents, choices, generator))
                else:
                    sizes, dims = self.sizes, 0
                    if self.given is not None:
                        sizes, dims = (*self.given.sizes, *sizes), self.given.dims
                    model = latent_model(
                        config.latents, clusters, config.mapper, generator, sizes, dims
                    )
                    model = model.to(self.device)
                    self._train_mapper(model.ensemble, latents, clusters, choices, generator)
                    run.save_module("mapper", model)
                trained = config.latents == "mapper"
                run.facts["map"] = config.mapper.kind if trained else ""
        return run.load_mapper(clusters, chain).to(self.device)

    def _train_mapper(
        self,
        mapper: torch.nn.Module,
        latents: Tensor,
        clusters: Clusters,
        labels: Tensor,
        generator: torch.Generator,
    ) -> None:
        if isinstance(mapper, Mapper):
            least = self.config.clusters.min_rows
            observer = StageObserver(self.run, self.watch, "mapper")
            held = self._held_choices(clusters)
            if self.given is not None:
                assert isinstance(mapper, FlowMapper)
                used, back = _split(len(latents), self.seed, KEPT_BACK)
                parts = ((latents[k], labels[k]) for k in (used, back))
                stage = GivenFlowStage(mapper, *parts)
                shown = partial(mapper.judge, *held)
                fit("mapper", stage, lambda _: judged(stage.phases(), shown), self.seed, observer)
                mapper.load_state_dict(stage.best.state_dict())
                return
            rows, own = _replace_small_clusters(latents, labels, clusters, least, generator)

            def phases(generator: torch.Generator) -> Iterator[Phase]:
                held_out = None if mapper.judge(*held) is None else partial(mapper.judge, *held)
                return judged(mapper.phases(rows, own, generator), held_out)

            fit("mapper", mapper, phases, self.seed, observer)

    @torch.no_grad()
    def _held_choices(self, clusters: Clusters) -> tuple[Tensor, Tensor]:
        """Return given numbers and latents of rows that are held out, and choices as maps take them."""
        latents = self.run.load_encoder(self.held_y.shape[1]).to(self.device)(self.held_y[:JUDGING])
        given = self._conditions(self.held[:JUDGING], np.random.default_rng(0))
        together = torch.cat([given.h, latents], 1)
        labels = Assign(clusters).to(together)(together)
        return together, joined(given.s, joined(self.held_outcomes[:JUDGING], labels))

    def decoder(self, latents: Tensor, model: LatentModel, y: Tensor) -> None:
        """Train the decoder from latents [n, e] to coordinates [n, d']."""
        run, config, seed = self.run, self.config.decoder, self.seed
        if not run.finished("decoder"):
            with self._stage("decoder"):
                used, back = _split(len(y), seed, KEPT_BACK)
                latent, target, kept_back = latents[used], y[used], (latents[back], y[back])
                generator = generator_for(seed, "decoder")
                linear = self.config.encoder.kind == "linear"
                lost = y.shape[1] - latents.shape[1] if linear else 0
                stage = DecoderStage(model, latent, target, config, generator, lost)
                observer = StageObserver(run, self.watch, "decoder")
                phases = stage.phases(latent, target, kept_back)
                fit("decoder", stage, lambda _: phases, seed, observer)
                guards.check_decoder(_mapped(stage.decoder, latents), y)
                run.facts["width"] = stage.decoder.width
                run.save_module("decoder", stage.decoder)
        run.load_decoder()

    @torch.no_grad()
    def margins(self, model: LatentModel, y: Tensor) -> None:
        """Fit the curves from generated coordinates to those of training rows [n, d'].

        Behind a flow, where there are discrete values: what a table of numbers alone gains is less than what it loses
        where they are functions of one another.
        """
        run, seed = self.run, self.seed
        flow = isinstance(model.ensemble, FlowMapper) and bool(self.sizes) and self.given is None
        if not flow or len(y) < FEWEST or run.finished("margins") or run.finished("figures"):
            return
        parts = Parts.of(run)
        if not parts.coordinates.continuous:
            return
        with self._stage("margins"):
            generator = generator_for(seed, "margins")
            made, choices = [], []
            for _ in range(DRAWS):
                drawn = {
                    key: torch.from_numpy(value)
                    for key, value in parts.inputs(BLOCK, generator).items()
                }
                latent, choice = parts.latents(drawn["u"], drawn["w"])
                made.append(parts.decode(latent, drawn.get("z")))
                choices.append(choice.reshape(BLOCK, -1)[:, :-1])
            there = [
                parts.coordinates.present(own.cpu().numpy())
                for own in (self.outcomes, torch.cat(choices))
            ]
            both = y.cpu().numpy(), torch.cat(made).numpy()
            margins = Margins.fit(*both, (there[0], there[1]))
            run.save_arrays("margins", {"margins": margins.values})

    def figures(self) -> None:
        """Judge the finished run on the rows that no stage saw."""
        run, rows = self.run, self.run.load_held_out()
        if not run.finished("figures"):
            with self._stage("figures"):
                self.watch.begin("figures")
                generator = generator_for(self.seed, "figures")
                run.facts["figures"] = Parts.of(run).figures(rows, run.columns, generator)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage and record it as finished if it ends well."""
        start, run = time.perf_counter(), self.run
        yield
        run.facts.setdefault("seconds", {})[name] = round(time.perf_counter() - start, 3)
        run.save()
        if distributed.rank() == 0:
            (run.path / "checkpoint.safetensors").unlink(missing_ok=True)
        distributed.barrier()


def judged(phases: Iterable[Phase], held_out: Callable[[], Any] | None) -> Iterator[Phase]:
    """Yield phases with what measures them on rows that do not train."""
    for phase in phases:
        yield replace(phase, held_out=held_out)


def _replace_small_clusters(
    latents: Tensor, labels: Tensor, clusters: Clusters, least: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace a cluster's rows by draws of its Gaussian where they are few: a map would copy them."""
    if labels.dim() > 1:  # a flow that sees discrete values shares what clusters have in common
        return latents, labels
    counts = torch.bincount(labels, minlength=len(clusters)).cpu()
    few = torch.nonzero(counts < least).squeeze(1)
    if not len(few):
        return latents, labels
    noise = torch.randn(len(few), SMOOTH, latents.shape[1], generator=generator)
    drawn = clusters.means[few].unsqueeze(1) + noise @ clusters.factors[few].mT
    keep = ~torch.isin(labels, few.to(labels.device))
    own = few.repeat_interleave(SMOOTH).to(labels)
    return torch.cat([latents[keep], drawn.flatten(0, 1).to(latents)]), torch.cat(
        [labels[keep], own]
    )


@torch.no_grad()
def _mapped(network: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(rows, 65536)])


def _split(n: int, seed: int, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """Return which rows train and which are kept from it: at most 10,000, at least one, none of one row."""
    order = torch.randperm(n, generator=generator_for(seed, "split", share))
    held = min(MOST_HELD_OUT, max(1, int(share * n)), n - 1)
    return order[held:].sort().values, order[:held].sort().values


def _check_enough(table: Table, config: Config, source: str) -> None:
    wanted = 1 if config.clusters.choose else int(config.clusters.k)
    if len(table) - 1 < max(wanted, 2):
        raise DataError(
            f"{source}: {len(table)} rows are too few for {wanted} clusters; give more rows or fewer clusters"
        )


def _create(path: Path, table: Table, config: Config, source: str, force: bool) -> None:
    taken = path.exists() and any(path.iterdir() if path.is_dir() else [path])
    if taken and not (path / "run.json").is_file():
        raise UsageError(f"{path} exists and is no run; choose another folder")
    if taken and not force:
        raise UsageError(
            f"{path} exists; resume that run, or replace it with --force, or choose another folder"
        )
    new = path.with_name(f".{path.name}.new")
    facts = {"rows": len(table), "sha256": table.fingerprint()}
    try:
        new.mkdir(parents=True, exist_ok=True)
        with locked(new), ExitStack() as undone:
            undone.callback(shutil.rmtree, new, ignore_errors=True)
            Run(new, config, source, table.columns, facts).save()
            if taken:
                with locked(path):
                    shutil.rmtree(path)
            new.rename(path)
            undone.pop_all()
    except OSError as error:
        raise DataError(
            f"can't make the run folder {path}: {error.strerror}; choose another"
        ) from error


def _resumed(path: Path, table: Table, config: Config) -> Run:
    """Return the run to finish; it may go on on another device."""
    run = Run.load(path)
    if run.facts.get("sha256") != table.fingerprint():
        raise DataError(
            f"{path} was begun with other rows ({run.source}); give the same data, or train anew"
        )
    if replace(run.config, device=config.device) != config:
        raise UsageError(
            f"{path} was begun with other settings (see its config.toml); leave them out, or train anew"
        )
    return replace(run, config=config)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: networks this small take twice as long on two, longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
