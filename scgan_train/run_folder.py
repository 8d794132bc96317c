"""The run folder: all results of a training, each part written when it is complete.

    run.json                 version, source, columns, sizes, finished stages with seconds, notes
    config.toml              the configuration, resolved: what was trained
    coordinates.safetensors  between rows and coordinates
    given.safetensors        from given columns to network inputs, where there are any
    encoder.safetensors      stage 1
    clusters.safetensors     K-means and its refinement
    head.safetensors         the chain of discrete values and clusters, where there is one
    mapper.safetensors       stage 2
    decoder.safetensors      stage 3
    margins.safetensors      from generated columns to training rows' distribution, where needed
    held_out.npy             rows that no stage saw
    history.jsonl            a line per stage, phase and step with the losses
    checkpoint.safetensors   the stage under way
    .lock                    while a training is running; a killed one may leave it, without effect

Nothing is resolved again when a run is loaded.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Generator, Tensor, nn

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, ModelError, UsageError
from scgan_infer.files import is_at, lock, open_own, write_bytes
from scgan_train import config as configs
from scgan_train.config import Config
from scgan_train.coordinates.effects import Effects
from scgan_train.coordinates.given import Given, divide
from scgan_train.coordinates.transform import Coordinates
from scgan_train.decoder import Decoder
from scgan_train.encoder import Encoder
from scgan_train.fitting import distributed
from scgan_train.latents.chain import Chain
from scgan_train.latents.clusters import Assign, Clusters
from scgan_train.latents.head import LatentModel, RealLatents
from scgan_train.maps import latent_model
from scgan_train.maps.flow import FlowMapper

M = TypeVar("M", bound=nn.Module)
VERSION = 2
FACTS = {
    "rows": int,
    "sha256": str,
    "clusters": str,
    "width": int,
    "figures": dict,
    "map": str,
    "seconds": dict,
    "notes": list,
    "files_sha256": dict,
}
# of a finished run
NEEDED = {"rows", "sha256", "clusters", "width", "figures"}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder against other trainings; the lock ends with its process, however that ends.

    Raises:
        UsageError: another training has it.
        DataError: the folder can't be written.
    """
    path = folder / ".lock"
    try:
        file = open_own(path, create=True)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror}; choose another folder") from error
    with file:
        if not lock(file, path):
            raise UsageError(
                f"{folder}: another training is at work there; let it end, or choose another folder"
            )
        try:
            yield
        finally:
            if is_at(file, path):
                path.unlink()


@dataclass(repr=False)
class Run:
    """A run folder and its facts.

    Attributes:
        path: the folder.
        config: as trained.
        source: where the rows came from (a built-in name or a file's name).
        columns: d + g columns.
        facts: what else `run.json` holds: sizes, notes, seconds of each finished stage, SHA-256 of
            data and files.
    """

    path: Path
    config: Config
    source: str
    columns: tuple[Column, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r} of {self.source}, {len(self.columns)} columns>"

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that each finished stage took."""
        return dict(self.facts.setdefault("seconds", {}))

    @property
    def made(self) -> list[int]:
        """Indices of the d columns that are generated."""
        return divide(self.columns, self.config.given)[0]

    @property
    def given(self) -> list[int]:
        """Indices of the g given columns."""
        return divide(self.columns, self.config.given)[1]

    def finished(self, stage: str) -> bool:
        """Return whether a stage is finished."""
        return stage in self.facts.get("seconds", {})

    def save(self) -> None:
        """Write `run.json` and `config.toml`."""
        config = tomli_w.dumps(configs.to_dict(self.config)).encode()
        head: dict[str, Any] = {"version": VERSION, "source": self.source}
        head["columns"] = [column.to_dict() for column in self.columns]
        head["config_sha256"] = hashlib.sha256(config).hexdigest()
        self.write("config.toml", config)
        self.write("run.json", json.dumps(head | self.facts, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run folder.

        Raises:
            ModelError: if it is no run folder, is damaged, or is of another version.
        """
        try:
            facts = json.loads((path / "run.json").read_text("utf-8"))
            version = facts.pop("version")
            if version != VERSION:
                advice = "train again" if version < VERSION else "install a newer scgan"
                raise ModelError(
                    f"{path}: run of version {version}, this scgan reads {VERSION}; {advice}"
                )
            columns = tuple(Column.from_dict(column) for column in facts.pop("columns"))
            written = (path / "config.toml").read_bytes()
            if facts.pop("config_sha256", None) not in (None, hashlib.sha256(written).hexdigest()):
                raise ModelError(
                    f"{path / 'config.toml'} is not as this run began; put it back, or train again"
                )
            config = configs.from_dict(tomllib.loads(written.decode()))
            source = str(facts.pop("source"))
            _check(facts)
            return cls(path, config, source, columns, facts)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelError(
                f"{path} is not a run folder: {Path(error.filename).name} is missing; "
                "give one that train made"
            ) from error
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ModelError(f"{path}: damaged run.json ({error}); train again") from error

    def write(self, name: str, content: bytes, *, note: bool = False) -> None:
        """Write a file of the run, all or nothing; with `note`, `run.json` records its SHA-256.

        Raises:
            DataError: if it can't be written.
        """
        if distributed.rank() == 0:
            write_bytes(self.path / name, content, self.path / f".{name}.new")
            if note:
                noted = self.facts.setdefault("files_sha256", {})
                noted[name] = hashlib.sha256(content).hexdigest()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file of the run.

        Raises:
            ModelError: it has changed since this run wrote it.
        """
        content = (self.path / name).read_bytes()
        noted = self.facts.get("files_sha256", {}).get(name)
        if noted not in (None, hashlib.sha256(content).hexdigest()):
            raise ModelError(
                f"{self.path / name} is not as this run left it; put it back, or train again"
            )
        return content

    def append(self, name: str, line: str) -> None:
        """Add a line to a file of the run.

        Raises:
            DataError: if it can't be written.
        """
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise DataError(
                f"can't write {self.path / name}: {error.strerror}; free space, then resume"
            ) from error

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor | NDArray[Any]]) -> None:
        """Write named tensors or arrays to `NAME.safetensors`; `mapper`'s without its chain."""
        plain = {
            key: torch.as_tensor(tensor).detach().cpu().contiguous()
            for key, tensor in tensors.items()
        }
        self.write(f"{name}.safetensors", tensors_to_bytes(plain), note=name != "checkpoint")

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read `NAME.safetensors`.

        Raises:
            ModelError: if it is missing, damaged or has changed.
        """
        path = self.path / f"{name}.safetensors"
        try:
            tensors = tensors_from_bytes(self.read(path.name))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelError(f"{path} is missing: the run is not finished; resume it") from error
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: damaged ({error}); train again") from error
        # A tensor's alignment decides how its sums are grouped: a copy's is as before writing.
        return {key: tensor.clone() for key, tensor in tensors.items()}

    def save_held_out(self, rows: NDArray[np.float32]) -> None:
        """Write the rows that no stage may see."""
        buffer = BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        self.write("held_out.npy", buffer.getvalue(), note=True)

    def load_held_out(self) -> NDArray[np.float32]:
        """Read the rows that no stage has seen, float32 [n, d + g]."""
        try:
            content = BytesIO(self.read("held_out.npy"))
            rows: NDArray[np.float32] = np.load(content, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(
                f"{self.path / 'held_out.npy'}: missing or damaged ({error}); train again"
            ) from error
        return rows

    def load_coordinates(self) -> Coordinates:
        """Read the transform between rows and coordinates."""
        columns = [self.columns[j] for j in self.made]
        state = self._arrays("coordinates")
        if self.finished("margins"):
            state |= self._arrays("margins")
        with self._fitting("coordinates"):
            return Coordinates(columns, state)

    def load_given(self) -> Given | None:
        """Read the transform from given columns to network inputs; None without any."""
        if not self.given:
            return None
        columns, state = [self.columns[j] for j in self.given], self._arrays("given")
        with self._fitting("given"):
            return Given(columns, state)

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        return {key: tensor.numpy() for key, tensor in self.load_tensors(name).items()}

    def load_encoder(self) -> Encoder:
        """Read stage 1."""
        dims = self.load_coordinates().dims
        return self._filled("encoder", lambda _: Encoder(dims, self.config.encoder, Generator()))

    def save_clusters(self, clusters: Clusters, labels: Tensor, settled: Tensor | None) -> None:
        """Write clusters, each training row's label [n], and latents [n, e] if drawn anew."""
        parts = {
            "weights": clusters.weights,
            "means": clusters.means,
            "factors": clusters.factors,
            "em": torch.tensor(clusters.kind == "em"),
            "labels": labels.to(torch.int32),
        }
        self.save_tensors("clusters", parts | ({} if settled is None else {"settled": settled}))

    def load_clusters(self) -> tuple[Clusters, Tensor, Tensor | None]:
        """Inverse of `save_clusters`."""
        parts = self.load_tensors("clusters")
        with self._fitting("clusters"):
            settled = parts.pop("settled", None)
            labels, kind = parts.pop("labels").long(), "em" if parts.pop("em") else "kmeans"
            return Clusters(**parts, kind=kind), labels, settled

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many outcomes each discrete value has, [h - 1]."""
        return tuple(step.size for step in self.load_coordinates().steps)

    def new_chain(self, clusters: Clusters, generator: Generator) -> Chain:
        """Return the untrained chain over discrete values and clusters, behind given columns."""
        every, given = [*self.sizes, len(clusters)], self.load_given()
        if given is None:
            return Chain(every, generator)
        gate = Assign(clusters.leading(given.dims)) if given.dims else None
        return Chain(every, generator, given.sizes, gate, given.dims)

    def new_mapper(self, clusters: Clusters, generator: Generator) -> LatentModel:
        """Return the untrained model that latents are drawn from; not for `real`."""
        sizes, dims = self.sizes, 0
        if (given := self.load_given()) is not None:
            sizes, dims = (*given.sizes, *sizes), given.dims
        config = self.config
        return latent_model(config.latents, clusters, config.mapper, generator, sizes, dims)

    def load_head(self) -> Chain | None:
        """Read the chain; None where there is none.

        There is none without discrete or given columns; nor with real latents, stored with choices.
        """
        if self.config.latents == "real" or not (self.sizes or self.given):
            return None

        def build(tensors: dict[str, Tensor]) -> Chain:
            chain = self.new_chain(self.load_clusters()[0], Generator())
            for name in filter(chain.names_tie, tensors):
                chain.register_buffer(name, tensors[name])
            return chain

        return self._filled("head", build)

    def load_mapper(self) -> LatentModel:
        """Read stage 2's latent model, with its chain."""

        def build(tensors: dict[str, Tensor]) -> LatentModel:
            if self.config.latents == "real":
                return RealLatents(tensors["table"], tensors["thresholds"], tensors.get("choices"))
            model = self.new_mapper(self.load_clusters()[0], Generator())
            flow, chosen = model.ensemble, "ensemble.leading" in tensors
            if isinstance(flow, FlowMapper) and flow.chosen != chosen:
                flow.lay_out(chosen=chosen)
            if isinstance(flow, FlowMapper) and "ensemble.means" in tensors:
                table, spread = (
                    tensors[f"ensemble.{name}"].numpy() for name in ("means", "spread")
                )
                pairs = tensors.get("ensemble.pairs", torch.zeros((0, 2), dtype=torch.int64))
                flow.follow(Effects(table, self.sizes, spread, pairs.numpy()))
            return model

        model = self._filled("mapper", build)
        model.chain = self.load_head()
        return model

    def load_decoder(self) -> Decoder:
        """Read stage 3."""
        return self._filled("decoder", Decoder.of_shapes)

    def _filled(self, name: str, build: Callable[[dict[str, Tensor]], M]) -> M:
        """Return a module with the weights of `NAME.safetensors`."""
        tensors = self.load_tensors(name)
        with self._fitting(name):
            module = build(tensors)
            module.load_state_dict(tensors)
            return module.eval()

    @contextmanager
    def _fitting(self, name: str) -> Iterator[None]:
        """Raise a ModelError if the tensors of a file do not fit."""
        try:
            yield
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            first = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"{self.path / name}.safetensors does not fit config.toml: {first}; train again"
            ) from error


def _check(facts: dict[str, Any]) -> None:
    """Raise a ValueError if facts of a run have wrong types or are missing."""
    wrong = {key for key, kind in FACTS.items() if key in facts and type(facts[key]) is not kind}
    if not wrong and "figures" in facts.get("seconds", {}):
        wrong = NEEDED - facts.keys()
    numbers = (
        [] if wrong else [*facts.get("seconds", {}).values(), *facts.get("figures", {}).values()]
    )
    if wrong or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{', '.join(sorted(wrong)) or 'seconds or figures'} can't be read")
    # neither infinite numbers nor halves of surrogate pairs
    json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()
