"""What every model shares: plain hyper-parameters, and a folder to save them and the weights in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from structlv.data.vocabulary import Vocabulary
from structlv.models.folder import read_folder, write_folder

M = TypeVar("M", bound="Model")


class Elbo(NamedTuple):
    """A lower bound of log p(x), ``reconstruction - kl``, each (*b) in nats.

    Attributes:
        reconstruction: log p(x | z) of a draw z from the inference network, or its mean.
        kl: KL of the inference network's q(z | x) from the prior.
        kl_parts: (*b, d), the KL of each dimension (or group) of z, which sum to ``kl``; None where it does
            not split. Free bits need it.
        auxiliary: (*b), a term that training adds to what it maximises, and that is no part of the bound.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_parts: Tensor | None = None
    auxiliary: Tensor | None = None

    @property
    def bound(self) -> Tensor:
        """(*b) nats."""
        return self.reconstruction - self.kl


class Model(nn.Module):
    """A module that can be saved: its constructor's arguments are `hyperparameters` (plain JSON values).

    `vocabulary` is set where the observations are words, and saved with the model.
    """

    registry: ClassVar[dict[str, type[Model]]] = {}

    def __init__(self, **hyperparameters: Any) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.vocabulary: Vocabulary | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Model.registry[cls.__name__] = cls

    def save(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and, with a vocabulary, `vocab.json` into `folder`,
        atomically.

        A model saved there before is replaced whole or not at all. Raises ValueError where the folder holds
        anything but a saved model, OSError where it cannot be written (the old one is intact then).
        """
        config = {"model": type(self).__name__, "hyperparameters": self.hyperparameters}
        words = None if self.vocabulary is None else list(self.vocabulary.words[1:])
        write_folder(Path(folder), config, self.state_dict(), words)

    @classmethod
    def load(cls: type[M], folder: str | Path) -> M:
        """Read a model that `save` wrote; no pickle is involved. `Model.load` finds the class by its name.

        Raises FileNotFoundError where there is none, ValueError (which names the file) where one is
        truncated, foreign, or of another class than the one asked for.
        """
        config, weights, words = read_folder(Path(folder))
        kind = Model.registry.get(str(config.get("model")))
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{folder}: holds a {config.get('model')}, expected a {cls.__name__}")
        try:
            model = kind(**config["hyperparameters"])
            model.load_state_dict(weights)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{folder}: config.json and model.safetensors do not fit together: {error}"
            ) from error
        model.vocabulary = None if words is None else Vocabulary(words)
        return model.eval()
