"""dynamax again, with the gradients read off its forward-backward smoother instead of reverse mode."""

from __future__ import annotations

import jax.numpy as jnp
from dynamax.hidden_markov_model import inference

from benchmarks.peers.dynamax import PACKAGES, batched, compiled

__all__ = ["PACKAGES", "prepare"]


def smoother(transition, unary):
    def one(matrix, likelihoods):
        return inference.hmm_smoother(jnp.ones(likelihoods.shape[-1]), matrix, likelihoods)

    return batched(one, jnp.exp(transition), unary)


def log_z_grad(transition, unary):
    posterior = smoother(transition, unary)
    return posterior.marginal_loglik, posterior.smoothed_probs, posterior.trans_probs.sum(0)


def dense_grad(transition, unary):
    posterior = smoother(transition, unary)
    return posterior.marginal_loglik, posterior.trans_probs


def prepare(query, inputs):
    queries = {"logz_grad": log_z_grad, "dense_grad": dense_grad}
    if query not in queries:
        raise NotImplementedError("only the gradients: for the rest see dynamax")
    return compiled(queries[query], query, inputs)
