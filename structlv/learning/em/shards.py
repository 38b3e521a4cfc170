"""EM over several processes, each of which has a part of the data."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from structlv.distributions.algebra import flat, rebuilt
from structlv.learning.em.problem import Expectation, Problem


class Sharded:
    """Sums over the processes of torch.distributed's default group, each of which has a part of the data.

    Raises RuntimeError where there is no such group.
    """

    def __init__(self) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise RuntimeError(
                "sharded=True sums over processes: call torch.distributed.init_process_group first"
            )
        self.size, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()

    def total(self, *numbers: float) -> list[float]:
        """The sums over processes, in float64."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(sums)
        return sums.tolist()

    def counts(self, counts: Any) -> Any:
        """The sums over processes, one message for all."""
        parts = flat(counts)
        sums = torch.cat([x.flatten() for x in parts])
        torch.distributed.all_reduce(sums)
        pieces = sums.split([x.numel() for x in parts])
        return rebuilt(counts, (s.reshape(x.shape) for s, x in zip(pieces, parts, strict=True)))

    def same(self, tensors: list[Tensor]) -> list[Tensor]:
        """Those of process 0, for all."""
        copies = [x.clone() for x in tensors]
        for x in copies:
            torch.distributed.broadcast(x, 0)
        return copies


class OverShards(Problem):
    """The problem of all processes together: each looks at its own data, all find the same parameters.

    Their expected counts are added up in float64, so that every process makes the same M-step, bit for bit.
    """

    def __init__(self, problem: Problem) -> None:
        if not problem.additive:
            raise ValueError(
                "sharded=True needs counts that are sums over sequences; of factorial HMMs they are not"
            )
        self.problem, self.shards = problem, Sharded()
        self.monotone = problem.monotone
        items, steps = self.shards.total(problem.items, problem.steps)
        self.items, self.steps = int(items), int(steps)

    def begin(self, model: Any) -> Any:
        """That of process 0: a random start may depend on a process's own data."""
        found = self.problem.begin(model)
        return self.problem.restored(found, self.shards.same(self.problem.tensors(found)))

    def e_step(self, model: Any, carry: Any = None, items: Tensor | None = None) -> Expectation:
        found = self.problem.e_step(model, carry, items)
        (value,) = self.shards.total(found.value)
        return Expectation(self.shards.counts(found.counts), value, found.carry)

    def m_step(self, model: Any, counts: Any) -> Any:
        return self.problem.m_step(model, counts)

    def log_prior(self, model: Any) -> float:
        return self.problem.log_prior(model)

    def tensors(self, model: Any) -> list[Tensor]:
        return self.problem.tensors(model)

    def restored(self, model: Any, tensors: list[Tensor]) -> Any:
        return self.problem.restored(model, tensors)

    def finished(self, model: Any) -> Any:
        return self.problem.finished(model)

    def fingerprint(self) -> str:
        mine = zlib.crc32(f"{self.shards.rank}:{self.problem.fingerprint()}".encode())
        return f"{self.shards.size} shards:{int(self.shards.total(mine)[0])}"
