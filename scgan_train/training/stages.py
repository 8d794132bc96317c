"""Training from rows to a run: coordinates, encoder, clusters, mapper, decoder, saved in turn.

    x -coordinates-> y -encoder-> eps -clusters-> label -mapper-> g_label(w) ~ eps -decoder-> y

Given columns c become numbers h, before the latents where clusters and maps are fitted: (h, eps).

Every stage draws from its own stream of the run's seed, so its result does not depend on where a
training resumed.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Generator, Tensor

from scgan_infer.columns import Table
from scgan_infer.errors import DataError, UsageError
from scgan_train.config import Config
from scgan_train.coordinates.constraints import Constraint
from scgan_train.coordinates.discrete import follows, least, never
from scgan_train.coordinates.effects import Effects
from scgan_train.coordinates.given import Conditions, Given, divide, part
from scgan_train.coordinates.margins import FEWEST, Margins
from scgan_train.coordinates.transform import Coordinates
from scgan_train.decoder import DecoderStage
from scgan_train.encoder import Encoder
from scgan_train.exporting.parts import Parts
from scgan_train.fitting import distributed, guards
from scgan_train.fitting.loop import Phase, fit, generator_for
from scgan_train.latents import clusters as clustering
from scgan_train.latents.chain import Chain
from scgan_train.latents.chain_stage import ChainStage
from scgan_train.latents.clusters import Assign, Clusters
from scgan_train.latents.head import LatentModel, RealLatents, joined
from scgan_train.maps.base import Mapper
from scgan_train.maps.flow import FlowMapper, GivenFlowStage
from scgan_train.resolving import allowed_clusters, constraints_of, resolve
from scgan_train.run_folder import Run, locked
from scgan_train.training.progress import StageObserver
from scgan_train.watch import Watch

HELD_OUT = 0.05
MOST_HELD_OUT = 10_000
BLOCK, DRAWS = 4096, 24  # rows per draw for margins, and the largest number of draws
FOLD = 16  # draws per training row for tables of scores
KEPT_BACK = 0.1  # share of the training rows for choosing the decoder's width
JUDGING = 2_000  # held-out rows for the loss shown during training
FEW_BACK, ENOUGH_BACK = 0.25, 100  # rows that stop a chain early: a share, up to so many rows
SMOOTH = 256  # draws that replace a cluster of few rows


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
        source: where the rows came from, as the run records it.
        resume: go on from the last finished stage or checkpoint.
        force: remove a run that is in the folder, once all checks of the new one have passed.
        begin: called with the constraints once all checks have passed.

    Raises:
        DataError: fewer rows than clusters, or other rows than those that the run began with.
        DeviceError: the device asked for is not available.
        UsageError: the folder is taken, another training is running there, or a setting does not
            fit the data.
        TrainingError: a loss stopped being finite.
    """
    constraints = constraints_of(config, table)
    config = resolve(config, table, constraints)
    made, _ = divide(table.columns, config.given)
    # a sum of other columns may exceed the range of the training rows
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
    """The stages of one run: each reads what it needs from the files of earlier ones."""

    def __init__(
        self, table: Table, constraints: Sequence[Constraint], run: Run, watch: Watch
    ) -> None:
        self.table, self.constraints, self.run, self.watch = table, constraints, run, watch
        self.config, self.seed = run.config, run.config.seed
        self.device = torch.device(self.config.device)
        if self.config.device == "cuda" and (local := distributed.local()) is not None:
            self.device = torch.device("cuda", local)
        kept, held = _split(len(table), self.seed)
        self.kept, self.held = kept.numpy(), held.numpy()  # numpy takes a tensor of one as number

    def finish(self) -> None:
        """Run the stages that are not finished, and check that all results can be read."""
        stages = {
            "coordinates": self._fit_coordinates,
            "encoder": self._train_encoder,
            "clusters": self._fit_clusters,
            "head": self._train_head,
            "mapper": self._train_mapper,
            "decoder": self._train_decoder,
            "margins": self._fit_margins,
            "figures": self._judge,
        }
        run = self.run
        for name, stage in stages.items():
            if run.finished(name) or not self._needs(name):
                continue
            start = time.perf_counter()
            stage()
            run.facts.setdefault("seconds", {})[name] = round(time.perf_counter() - start, 3)
            run.save()
            if distributed.rank() == 0:
                (run.path / "checkpoint.safetensors").unlink(missing_ok=True)
            distributed.barrier()
        Parts.of(run)
        run.load_held_out()

    def _needs(self, stage: str) -> bool:
        """Return whether the run needs a stage."""
        if stage == "head":
            return bool(self.coordinates.steps) or self.given is not None
        if stage == "margins":
            free = self.config.latents == "mapper" and self.given is None
            due = free and not self.run.finished("figures")
            return due and (self._curved or bool(self.coordinates.scored.any()))
        return True

    @property
    def _curved(self) -> bool:
        """Whether coordinates have curves: after a flow, where there are discrete values.

        A table of numbers alone loses more than it gains where they are functions of one another.
        """
        mixed = self.coordinates.steps and self.coordinates.continuous and len(self.kept) >= FEWEST
        return bool(mixed and self.config.mapper.kind == "flow")

    @cached_property
    def coordinates(self) -> Coordinates:
        """The transform between rows and coordinates."""
        return self.run.load_coordinates()

    @cached_property
    def given(self) -> Given | None:
        """The transform from given columns to the inputs of networks."""
        return self.run.load_given()

    @cached_property
    def y(self) -> Tensor:
        """Coordinates [n, d'] of the training rows."""
        rng = np.random.default_rng([self.seed, 0xDE])
        return self._tensor(self.coordinates.forward(self._made(self.kept), rng, jitter=True))

    @cached_property
    def held_y(self) -> Tensor:
        """Coordinates of the held-out rows."""
        rows = self._made(self.held)
        return self._tensor(self.coordinates.forward(rows, np.random.default_rng(0)))

    @cached_property
    def latents(self) -> Tensor:
        """Latents [n, e] of the training rows."""
        return _mapped(self.run.load_encoder().to(self.device), self.y)

    @cached_property
    def conditions(self) -> Conditions:
        """Network inputs from the given columns of the training rows."""
        return self._conditions(self.kept, np.random.default_rng([self.seed, 0xC0]))

    @cached_property
    def together(self) -> Tensor:
        """Given numbers and latents [n, p + e] of the training rows."""
        return torch.cat([self.conditions.h, self.latents], 1)

    @cached_property
    def clustered(self) -> tuple[Clusters, Tensor, Tensor]:
        """The clusters, training rows' choices [n] or [n, r + h], and the maps' rows [n, p + e]."""
        clusters, labels, settled = self.run.load_clusters()
        settled = self.together if settled is None else settled.to(self.together)
        choices = joined(self._outcomes(self.kept), labels.to(self.device))
        return clusters, joined(self.conditions.s, choices), settled

    @cached_property
    def model(self) -> LatentModel:
        """The model that latents are drawn from for generation."""
        return self.run.load_mapper().to(self.device)

    def _tensor(self, y: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(y).to(self.device, torch.get_default_dtype())

    def _made(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the generated columns of some rows [n]."""
        return self.table.values[rows][:, self.run.made]

    def _outcomes(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the discrete values [n, h - 1] of some rows [n]."""
        return torch.from_numpy(self.coordinates.choose(self._made(rows))).to(self.device)

    def _conditions(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Conditions:
        """Return network inputs from the given columns of some rows [n]."""
        h: NDArray[np.floating[Any]] = np.zeros((len(rows), 0))
        s = np.zeros((len(rows), 0), np.int64)
        if self.given is not None:
            c = self.table.values[rows][:, self.run.given]
            h, s = self.given.forward(c, rng), self.given.choose(c)
        return Conditions(self._tensor(h), torch.from_numpy(s).to(self.device))

    def _fit(
        self, stage: str, module: torch.nn.Module, phases: Callable[[Generator], Iterator[Phase]]
    ) -> None:
        """Train a module through its phases, see `loop.fit`."""
        fit(stage, module, phases, self.seed, StageObserver(self.run, self.watch, stage))

    def _fit_coordinates(self) -> None:
        run = self.run
        run.save_held_out(self.table.values[self.held])
        table, tails = part(self.table, run.made), self.config.tails
        made = Coordinates.fit(table, self.kept, self.constraints, tails=tails)
        run.save_tensors("coordinates", made.state())
        if run.given:
            given = Given.fit(part(self.table, run.given), self.kept)
            run.save_tensors("given", given.state())

    def _train_encoder(self) -> None:
        y, config = self.y, self.config.encoder
        encoder = Encoder(y.shape[1], config, generator_for(self.seed, "encoder")).to(self.device)
        encoder.start(y)
        batch = min(config.batch, len(y)) * distributed.size()
        few = self.held_y[:batch]
        few = few[: len(few) - len(few) % distributed.size()]  # as many for each process

        def held_out() -> float:
            rows = distributed.local_part(few)
            loss = encoder.loss(rows, generator_for(self.seed, "held out"))["info_nce"]
            # corrected to the number of negatives of a training batch
            return float(distributed.mean(loss)) + math.log(batch / len(few))

        phases = judged(encoder.phases(y), held_out if len(few) else None)
        self._fit("encoder", encoder, lambda _: phases)
        encoder.calibrate(y)
        guards.check_encoder(_mapped(encoder, y), y)
        self.run.save_tensors("encoder", encoder.state_dict())

    def _fit_clusters(self) -> None:
        self.watch.begin("clusters")
        run, latents, generator = self.run, self.together, generator_for(self.seed, "clusters")
        given = self.given.dims if self.given else 0
        allowed = allowed_clusters(len(self.table), int(self.config.encoder.latent_dim))
        config = self.config.clusters
        clusters, labels, note = clustering.fit(latents, config, generator, given, allowed)
        run.facts["clusters"] = note
        settled = None
        if (bounds := self._bounds()) is not None and clusters.kind == "em":
            settled, clusters, labels = clustering.settle(
                latents, bounds, clusters, labels, generator
            )
        run.save_clusters(clusters, labels, settled)

    def _bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return each row's lower and upper latents, where numbers have an interval of scores."""
        plain = self.config.encoder.kind == "columns" and self.given is None
        if not plain or not self.coordinates.scored.any():
            return None
        encoder = self.run.load_encoder().to(self.device)
        bounds = self.coordinates.bounds(self._made(self.kept), self.y.cpu().numpy())
        low, high = (_mapped(encoder, torch.from_numpy(bound).to(self.y)) for bound in bounds)
        return low, high

    def _train_head(self) -> None:
        """Train the chain of discrete values and cluster, then tie values that determine others."""
        clusters, choices, _ = self.clustered
        choices, generator = choices.reshape(len(choices), -1), generator_for(self.seed, "head")
        chain = self.run.new_chain(clusters, generator).to(self.device)
        share = max(KEPT_BACK, min(FEW_BACK, ENOUGH_BACK / len(choices)))
        parts = _split(len(choices), self.seed, share)
        rows, held = ((choices[k], self.conditions.h[k]) for k in parts)
        steps, columns = self.coordinates.steps, self.coordinates.columns
        numbers = [0 if columns[s.column].rules.named else len(s.numbers) for s in steps]
        stage = ChainStage(chain, rows, held, numbers, generator)
        self._fit("head", stage, lambda _: stage.phases())
        best = stage.best
        assert isinstance(best, Chain)
        counts = [*[0] * best.known, *numbers, 0]
        best.match(choices, self.conditions.h, counts, generator_for(self.seed, "moments"))
        outcomes, known = choices[:, :-1].cpu().numpy(), best.known
        tied = follows(outcomes, [len(table) for table in best.embeddings], known)
        for (step, other), table in tied.items():
            best.tie(step, other, torch.from_numpy(table))
        seen = self.coordinates.choose(self.table.values[:, self.run.made])
        for (step, other), pairs in never(steps, seen).items():
            best.bar(step + known, other + known, torch.from_numpy(pairs))
        if self.config.constraints:
            bounds = least(steps, columns, outcomes[:, known:], {step - known for step, _ in tied})
            for (step, other), table in bounds.items():
                best.tie(step + known, other + known, torch.from_numpy(table), least=True)
        self.run.save_tensors("head", best.state_dict())

    def _train_mapper(self) -> None:
        """Train the model that latents are drawn from."""
        run, config, generator = self.run, self.config, generator_for(self.seed, "mapper")
        clusters, choices, latents = self.clustered
        run.facts["map"] = config.mapper.kind if config.latents == "mapper" else ""
        if config.latents == "real":
            model: LatentModel = RealLatents.of(latents, choices, generator)
        else:
            model = run.new_mapper(clusters, generator).to(self.device)
        mapper, held = model.ensemble, self._held_choices(clusters)
        if isinstance(mapper, FlowMapper) and self.given is not None:
            parts = _split(len(latents), self.seed, KEPT_BACK)
            stage = GivenFlowStage(mapper, *((latents[k], choices[k]) for k in parts))
            phases = judged(stage.phases(), partial(mapper.judge, *held))
            self._fit("mapper", stage, lambda _: phases)
            mapper.load_state_dict(stage.best.state_dict())
        elif isinstance(mapper, Mapper):
            few = config.clusters.min_rows
            rows, labels = _replace_small_clusters(latents, choices, clusters, few, generator)
            if isinstance(mapper, FlowMapper) and self.coordinates.steps:
                outcomes = labels[:, :-1].cpu().numpy()
                features = self.coordinates.features(outcomes)
                v = mapper.whitened(rows, labels).double().cpu().numpy()
                slopes = self.coordinates.slopes(outcomes)
                if effects := Effects.fit(features, outcomes, v, slopes=slopes):
                    mapper.follow(effects)
                    mapper.to(self.device)
            judge = None if mapper.judge(*held) is None else partial(mapper.judge, *held)
            self._fit(
                "mapper", mapper, lambda stream: judged(mapper.phases(rows, labels, stream), judge)
            )
        run.save_tensors("mapper", model.state_dict())

    @torch.no_grad()
    def _held_choices(self, clusters: Clusters) -> tuple[Tensor, Tensor]:
        """Return given numbers and latents of held-out rows, and choices as maps take them."""
        latents = self.run.load_encoder().to(self.device)(self.held_y[:JUDGING])
        given = self._conditions(self.held[:JUDGING], np.random.default_rng(0))
        together = torch.cat([given.h, latents], 1)
        labels = Assign(clusters).to(together)(together)
        return together, joined(given.s, joined(self._outcomes(self.held[:JUDGING]), labels))

    def _train_decoder(self) -> None:
        """Train the decoder from latents [n, e] to coordinates [n, d']."""
        y, latents, config = self.y, self.latents, self.config
        used, back = _split(len(y), self.seed, KEPT_BACK)
        rows = latents[used], y[used]
        lost = y.shape[1] - latents.shape[1] if config.encoder.kind == "linear" else 0
        generator = generator_for(self.seed, "decoder")
        stage = DecoderStage(self.model, *rows, config.decoder, generator, lost)
        phases = stage.phases(*rows, (latents[back], y[back]))
        self._fit("decoder", stage, lambda _: phases)
        guards.check_decoder(_mapped(stage.decoder, latents), y)
        self.run.facts["width"] = stage.decoder.width
        self.run.save_tensors("decoder", stage.decoder.state_dict())

    @torch.no_grad()
    def _fit_margins(self) -> None:
        """Fit generated coordinates to training rows [n, d'] by curves, scores by new tables."""
        parts, generator = Parts.of(self.run), generator_for(self.seed, "margins")
        made, choices = [], []
        few = 1 + FOLD * len(self.kept) // BLOCK
        for _ in range(DRAWS if self._curved else min(DRAWS, few)):
            drawn = {
                key: torch.from_numpy(value)
                for key, value in parts.inputs(BLOCK, generator).items()
            }
            latent, choice = parts.latents(drawn["u"], drawn["w"])
            made.append(parts.decode(latent, drawn.get("z")))
            choices.append(choice.reshape(BLOCK, -1)[:, :-1])
        real, generated = (
            self.coordinates.present(outcomes.cpu().numpy())
            for outcomes in (self._outcomes(self.kept), torch.cat(choices))
        )
        y = self.coordinates.whole(torch.cat(made).numpy(), torch.cat(choices).numpy())
        present, tensors = (real, generated), dict[str, NDArray[Any]]()
        if self._curved:
            real_y = self.coordinates.whole(
                self.y.cpu().numpy(), self._outcomes(self.kept).cpu().numpy()
            )
            rows, others = (
                self.coordinates.gone(each.cpu().numpy())
                for each in (self._outcomes(self.kept), torch.cat(choices))
            )
            gone = {k: (rows[k], others[k]) for k in rows}
            margins = Margins.fit(real_y, y, present, gone)
            y = margins.forward(y, margins.sides(others, len(y)))
            tensors["margins"] = margins.values
            if margins.missing is not None and margins.steps is not None:
                tensors |= {"margins_missing": margins.missing, "margins_steps": margins.steps}
        if self.coordinates.scored.any():
            tensors["tables"] = self.coordinates.balanced(self._made(self.kept), y, present)
        self.run.save_tensors("margins", tensors)

    def _judge(self) -> None:
        """Evaluate the finished run on the rows that no stage saw."""
        self.watch.begin("figures")
        run, generator = self.run, generator_for(self.seed, "figures")
        parts, rows = Parts.of(run), run.load_held_out()
        figures = run.facts["figures"] = parts.figures(rows, run.columns, generator)
        if "c2st" not in figures:
            trained = self.table.values[self.kept]
            notes = parts.trained_warnings(trained, run.columns, generator)
            run.facts["notes"] = [*run.facts.get("notes", []), *notes]


def judged(phases: Iterable[Phase], held_out: Callable[[], Any] | None) -> Iterator[Phase]:
    """Yield phases with a function that measures them on held-out rows."""
    for phase in phases:
        yield replace(phase, held_out=held_out)


def _replace_small_clusters(
    latents: Tensor, labels: Tensor, clusters: Clusters, least: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace a cluster's rows by draws of its Gaussian if they are few: a map would copy them."""
    if labels.dim() > 1:  # a flow that sees discrete values shares what clusters have in common
        return latents, labels
    counts = torch.bincount(labels, minlength=len(clusters)).cpu()
    few = torch.nonzero(counts < least).squeeze(1)
    if not len(few):
        return latents, labels
    noise = torch.randn(len(few), SMOOTH, latents.shape[1], generator=generator)
    drawn = clusters.means[few].unsqueeze(1) + noise @ clusters.factors[few].mT
    keep = ~torch.isin(labels, few.to(labels.device))
    drawn_labels = few.repeat_interleave(SMOOTH).to(labels)
    return torch.cat([latents[keep], drawn.flatten(0, 1).to(latents)]), torch.cat(
        [labels[keep], drawn_labels]
    )


@torch.no_grad()
def _mapped(network: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(rows, 65536)])


def _split(n: int, seed: int, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """Return training rows and held-out rows: at most 10,000, at least one, but none of one row."""
    order = torch.randperm(n, generator=generator_for(seed, "split", share))
    held = min(MOST_HELD_OUT, max(1, int(share * n)), n - 1)
    return order[held:].sort().values, order[:held].sort().values


def _check_enough(table: Table, config: Config, source: str) -> None:
    wanted = 1 if config.clusters.choose else int(config.clusters.k)
    if len(table) - 1 < max(wanted, 2):
        raise DataError(
            f"{source}: {len(table)} rows are too few for {wanted} clusters; "
            "give more rows or fewer clusters"
        )


def _create(path: Path, table: Table, config: Config, source: str, force: bool) -> None:
    taken = path.exists() and any(path.iterdir() if path.is_dir() else [path])
    if taken and not (path / "run.json").is_file():
        raise UsageError(f"{path} exists and is no run; choose another folder")
    if taken and not force:
        raise UsageError(
            f"{path} exists; resume that run, or replace it with force=true, "
            "or choose another folder"
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
    """Return the run to finish; it may continue on another device."""
    run = Run.load(path)
    if run.facts.get("sha256") != table.fingerprint():
        raise DataError(
            f"{path} was begun with other rows ({run.source}); give the same data, or train anew"
        )
    if replace(run.config, device=config.device) != config:
        raise UsageError(
            f"{path} was begun with other settings (see its config.toml); "
            "leave them out, or train anew"
        )
    return replace(run, config=config)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: so small networks take twice as long on two, more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
