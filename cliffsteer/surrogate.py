"""Surrogate: a trained network with everything it needs to be a Stepper, saved as weights and JSON."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.admissible import create_projections
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.models import create, fit_to_grid, with_defaults
from cliffsteer.normalization import Normalization
from cliffsteer.stepper import Parameters, check_frames
from cliffsteer.storage import replacing_folder, sha256
from cliffsteer.suggestions import question

FORMAT = "cliffsteer.surrogate"
FORMAT_VERSION = 2
PREDICTIONS = ("delta", "state")
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_NORM_OF_VERSION_1 = ("csresnet", "csunet", "csfno")


class Surrogate(nn.Module):
    """A network as a Stepper: physical units outside, normalised ones inside.

    With u₁..u_h the frames of the history, N and N_δ the normalisations of frames and of their changes, p the
    parameters and f the network,

        delta:  u_{h+k} = u_h + N_δ⁻¹ f(N u₁, ..., N u_h, N p)_k        state:  u_{h+k} = N⁻¹ f(...)_k

    and then, where there are projections Π, Π(u_{h+k}): what comes out obeys their laws whatever the weights are, and
    training sees it so.

    Time becomes channels by a view; every parameter field is a channel of its own multivector, constant over the grid,
    so that a force turns together with the data. Blades that no field occupies are zero on the way in and out.

    Args:
        network: maps (batch, in, blade, *grid) to (batch, out, blade, *grid) with
            in = history · n_multivectors + n_parameter_multivectors and out = future · n_multivectors.
        spec: the fields.
        grid: the grid of the data.
        dt: time between frames, in seconds unless the system says otherwise.
        history: frames read.
        future: frames predicted at once.
        normalization: scales of the fields, of their changes and of the parameters.
        prediction: "delta" or "state".
        model: name and options that `cliffsteer.models.create` needs to build the network again,
            e.g. ``{"name": "csresnet", "hidden_channels": 16}``; needed for saving only.
        projections: laws of the output, "law:field" for each, as `create_projections` takes them, e.g.
            ``["divergence_free:velocity"]``.
        hidden: parameter fields that the network does not read: it finds zeros in their place.

    Attributes:
        training_config, metrics: what `save_pretrained` stored beside the weights, or None.

    Raises:
        ValueError: a number of frames below 1, a time step that is not positive, an unknown prediction or parameter, or
            projections that do not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: FieldSpec,
        grid: Grid,
        dt: float,
        history: int,
        future: int,
        normalization: Normalization,
        prediction: str = "delta",
        model: Mapping[str, Any] | None = None,
        projections: Sequence[str] = (),
        hidden: Sequence[str] = (),
    ):
        super().__init__()
        if history < 1 or future < 1:
            raise ValueError(f"`history` (={history}) and `future` (={future}) must be at least 1 frame.")
        if not dt > 0:
            raise ValueError(f"`dt` (={dt}) must be positive.")
        if prediction not in PREDICTIONS:
            raise ValueError(f"`prediction` (={prediction!r}) must be 'delta' or 'state'.")
        self.network = network
        self.spec, self.grid, self.dt = spec, grid, float(dt)
        self.history, self.future, self.prediction = int(history), int(future), prediction
        self.normalization = normalization
        self.model = None if model is None else dict(model)
        self.training_config: dict[str, Any] | None = None
        self.metrics: dict[str, Any] | None = None
        occupied = spec.occupied.view(-1, *[1] * grid.dim)
        self.register_buffer("occupied", occupied, persistent=False)
        self.projection_names = [str(name) for name in projections]
        self.projections = create_projections(self.projection_names, spec, grid)
        self.hidden = sorted({hidden} if isinstance(hidden, str) else set(hidden))
        self.register_buffer("unread", _blades_of(spec, self.hidden), persistent=False)

    @classmethod
    def create(
        cls,
        model: Mapping[str, Any],
        spec: FieldSpec,
        grid: Grid,
        dt: float,
        history: int,
        future: int,
        normalization: Normalization,
        prediction: str = "delta",
        projections: Sequence[str] = (),
        hidden: Sequence[str] = (),
    ) -> Surrogate:
        """An untrained surrogate from a model's name and options; the channel counts follow from the spec.

        Raises:
            ValueError: an unknown model or option, or what the constructor refuses.
        """
        options = dict(model)
        name = options.pop("name", None)
        if name is None:
            raise ValueError(f"`model` (={dict(model)}) has no 'name'.")
        into = history * spec.n_multivectors + spec.n_parameter_multivectors
        network = create(name, spec.algebra, into, future * spec.n_multivectors, **fit_to_grid(options, grid))
        return cls(network, spec, grid, dt, history, future, normalization, prediction, model, projections, hidden)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, also of a frozen network's, which are buffers."""
        tensors = itertools.chain(self.parameters(), self.network.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())

    @property
    def field_scales(self) -> dict[str, float]:
        """Scale of each dynamic field, in its unit."""
        return self.normalization.scales

    @property
    def loss_scales(self) -> dict[str, float]:
        """Scale of each field's error in the loss: of its changes for "delta", of the field itself for "state"."""
        return self.normalization.deltas if self.prediction == "delta" else self.normalization.scales

    # --------------------------------------------------------------------------------------------- prediction

    def forward(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """The frames that follow, in physical units.

        Args:
            frames: the history, shape (batch, history, blade, *grid).
            parameters: packed parameter fields, shape (batch, blade).

        Returns:
            Shape (batch, future, blade, *grid), zero on blades that the spec does not declare.
        """
        change = self._output(frames, parameters)
        if self.prediction == "state":
            out = self.normalization.denormalize(change)
        else:
            out = frames[:, -1:] + self.normalization.denormalize_delta(change)
        out = self._declared(out)
        for projection in self.projections:
            out = projection(out, frames)
        return out

    def predict(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """The prediction in the normalised units of the loss; shapes as for `forward`.

        It is the network's output, or what the projections leave of it.
        """
        if len(self.projections):
            return self.target(frames, self(frames, parameters))
        return self._output(frames, parameters)

    def target(self, frames: Tensor, future: Tensor) -> Tensor:
        """What `predict` should return for these frames when ``future`` follows, (batch, future, blade, *grid)."""
        if self.prediction == "state":
            return self._declared(self.normalization.normalize(future))
        return self._declared(self.normalization.normalize_delta(future - frames[:, -1:]))

    def channels(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """The network's input: normalised frames and parameters, (batch, channel, blade, *grid)."""
        n_blades, grid = self.spec.algebra.n_blades, frames.shape[3:]
        x = self._declared(self.normalization.normalize(frames))
        x = x.reshape(frames.shape[0], self.history * self.spec.n_multivectors, n_blades, *grid)
        if not self.spec.n_parameter_multivectors:
            return x
        p = self.normalization.normalize_parameters(parameters).masked_fill(self.unread, 0)
        p = p.view(frames.shape[0], self.spec.n_parameter_multivectors, n_blades, *[1] * len(grid))
        return torch.cat([x, p.to(x.dtype).expand(-1, -1, -1, *grid)], 1)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frames, as every Stepper gives them, in the precision of ``frames``.

        Args:
            frames: at least ``history`` frames, oldest first, shape (batch, time, blade, *grid).
            parameters: parameter fields by name; those left out take the spec's defaults.

        Returns:
            Shape (batch, future, blade, *grid).

        Raises:
            ValueError: frames or parameters that do not fit.
        """
        check_frames(self, frames)
        packed = self.spec.pack_parameters(parameters, frames.shape[0], self.dtype, frames.device)
        return self(frames[:, -self.history :].to(self.dtype), packed).to(frames.dtype)

    def _output(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """The network's output, in normalised units, (batch, future, blade, *grid)."""
        out = self.network(self.channels(frames, parameters)).to(frames.dtype)
        return self._declared(out.reshape(frames.shape[0], self.future, self.spec.n_blades, *frames.shape[3:]))

    def _declared(self, frames: Tensor) -> Tensor:
        return frames.masked_fill(~self.occupied, 0)

    # --------------------------------------------------------------------------------------- saving, loading

    def save_pretrained(
        self,
        folder: str | Path,
        training_config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write `config.json`, `model.safetensors` and a model card; only a complete one replaces an old surrogate.

        Args:
            folder: where to; other files in an existing surrogate's folder stay, a README.md of your own too.
            training_config: JSON-ready description of the training, kept for readers.
            metrics: JSON-ready results, kept for readers: best those of `cliffsteer.evaluation.evaluate`.

        Returns:
            The folder.

        Raises:
            ValueError: the surrogate does not know its ``model``, is frozen, or the folder holds something else.
            OSError: the disk is full or not writable; the old surrogate is still there.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from cliffsteer.model_card import CARD, may_write_card, model_card

        folder = Path(folder)
        if self.model is None:
            raise ValueError("`model` is not known: give its name and options to the constructor to save a surrogate.")
        if any(getattr(module, "frozen", False) for module in self.network.modules()):
            raise ValueError("`network` is frozen and cannot be trained on: save the original, or use `export` for it.")
        if folder.exists() and not _is_ours(folder):
            raise ValueError(f"`folder` (={folder}) exists and holds no surrogate: give a new or an empty one.")
        config = self._config(training_config or self.training_config, metrics or self.metrics)
        json.dumps(config, allow_nan=False)  # what is no JSON is refused before anything is written
        weights = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in self.state_dict().items()}
        with replacing_folder(folder) as temporary:
            try:
                save_file(weights, temporary / _WEIGHTS, metadata={"format": "pt"})
            except SafetensorError as error:
                raise OSError(f"`{folder / _WEIGHTS}` could not be written: {error}.") from error
            config["weights_sha256"] = sha256(temporary / _WEIGHTS)
            text = json.dumps(config, indent=2, allow_nan=False) + "\n"
            (temporary / _CONFIG).write_text(text, encoding="utf-8")
            if may_write_card(folder):
                (temporary / CARD).write_text(model_card(self, config), encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Surrogate:
        """Load what `save_pretrained` wrote: same outputs bit for bit, in eval mode and with frozen weights.

        Call ``requires_grad_(True)`` to train it further.

        Raises:
            FileNotFoundError: no such folder, or a file of it is missing.
            ValueError: another format or version, a file cut short, or weights that do not fit the model.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"`folder` (={folder}) does not exist: give the folder of a saved surrogate.")
        for name in (_CONFIG, _WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"`{folder / name}` is missing: {folder} holds no complete surrogate.")
        config = read_config(folder / _CONFIG)
        try:
            spec = FieldSpec.from_dict(config["spec"])
            surrogate = cls.create(
                config["model"],
                spec,
                Grid.from_dict(config["grid"]),
                config["dt"],
                config["history"],
                config["future"],
                Normalization.from_dict(spec, config["normalization"]),
                config["prediction"],
                config.get("projections", ()),
                config.get("hidden", ()),
            ).to(getattr(torch, config["dtype"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`{folder / _CONFIG}` is damaged: {type(error).__name__} {error}.") from error
        surrogate.training_config, surrogate.metrics = config.get("training_config"), config.get("metrics")
        _load_weights(surrogate, folder / _WEIGHTS, config.get("weights_sha256"))
        return surrogate.to(device).eval().requires_grad_(False)

    def _config(self, training_config: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
        import cliffsteer

        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "cliffsteer_version": cliffsteer.__version__,
            "model": with_defaults(self.model),
            "spec": self.spec.to_dict(),
            "grid": self.grid.to_dict(),
            "dt": self.dt,
            "history": self.history,
            "future": self.future,
            "prediction": self.prediction,
            "projections": self.projection_names,
            "hidden": self.hidden,
            "normalization": self.normalization.to_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "training_config": training_config,
            "metrics": metrics,
        }


def weights_checksum(surrogate: Surrogate) -> str:
    """Hexadecimal sha256 of the names and values of a surrogate's weights, whatever their device and precision."""
    return _checksum(surrogate.state_dict())


def saved_checksum(folder: str | Path) -> str:
    """`weights_checksum` of the surrogate that is saved in a folder, which is not made."""
    return _checksum(_read_weights(Path(folder) / _WEIGHTS))


def _checksum(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        exact = value.detach().cpu().to(torch.float64 if value.is_floating_point() else value.dtype)
        digest.update(exact.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _blades_of(spec: FieldSpec, hidden: Sequence[str]) -> Tensor:
    """Which blades of packed parameters belong to these fields."""
    known = {field.name for field in spec.parameters}
    unknown = [name for name in hidden if name not in known]
    if unknown:
        raise ValueError(
            f"`hidden` names {unknown[0]!r}, which is no parameter of this system; there are"
            f" {', '.join(sorted(known)) or 'none'}.{question(unknown[0], known)}"
        )
    blades = torch.zeros(spec.n_parameter_blades, dtype=torch.bool)
    for name in hidden:
        blades[spec.slots[name].start : spec.slots[name].stop] = True
    return blades


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds a surrogate, of whatever version."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        return json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a saved surrogate.

    Raises:
        ValueError: another format or version, or a file cut short.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`{path}` is damaged: {error}.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"`{path}` describes no cliffsteer surrogate.")
    version = config.get("format_version")
    if version == 1 and config["model"].get("name") in _NORM_OF_VERSION_1:
        config["model"].setdefault("norm", "layer")  # options that had their default were left out
    if version not in (1, FORMAT_VERSION):
        raise ValueError(
            f"`{path}` has format version {version}, this cliffsteer reads versions 1 to {FORMAT_VERSION}: load it with"
            f" the cliffsteer that wrote it ({config.get('cliffsteer_version', 'unknown')}) or train it again."
        )
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"`{path}` is damaged or cut short: {error}.") from error


def _load_weights(surrogate: Surrogate, path: Path, checksum: str | None) -> None:
    if checksum is not None and sha256(path) != checksum:
        raise ValueError(f"`{path}` is damaged or cut short: it differs from its checksum in {_CONFIG}.")
    weights = _read_weights(path)
    expected = surrogate.state_dict()
    wrong = sorted(weights.keys() ^ expected.keys()) or sorted(
        name for name, value in weights.items() if value.shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"`{path}` does not fit the model in {_CONFIG}: {len(wrong)} weight(s) differ in name or shape,"
            f" the first is {wrong[0]!r}."
        )
    surrogate.load_state_dict(weights)
