"""dynamax on jax: jitted, vmapped over the batch, gradients by jax's reverse mode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from dynamax.hidden_markov_model import inference

PACKAGES = ("dynamax", "jax", "jaxlib", "numpy")


def batched(function, matrix, unary):
    """`function(matrix, log_likelihoods)` over the batch; the matrix is shared or (T-1,K,K) per sequence."""
    return jax.vmap(function, in_axes=(None if matrix.ndim == 2 else 0, 0))(matrix, unary)


def log_z(transition, unary):
    def one(matrix, likelihoods):
        return inference.hmm_filter(jnp.ones(likelihoods.shape[-1]), matrix, likelihoods).marginal_loglik

    return batched(one, jnp.exp(transition), unary)


def total(transition, unary):
    values = log_z(transition, unary)
    return values.sum(), values


def log_z_grad(transition, unary):
    (_, values), (edges, states) = jax.value_and_grad(total, (0, 1), has_aux=True)(transition, unary)
    return values, states, edges


def dense_grad(transition, unary):
    (_, values), edges = jax.value_and_grad(total, has_aux=True)(transition, unary)
    return values, edges


def marginals(transition, unary):
    def one(matrix, likelihoods):
        posterior = inference.hmm_smoother(jnp.ones(likelihoods.shape[-1]), matrix, likelihoods)
        return posterior.smoothed_probs

    return (batched(one, jnp.exp(transition), unary),)


def viterbi(transition, unary):
    def one(matrix, likelihoods):
        return inference.hmm_posterior_mode(jnp.ones(likelihoods.shape[-1]), matrix, likelihoods)

    return (batched(one, jnp.exp(transition), unary),)


def sample(transition, unary, key):
    matrix = jnp.exp(transition)

    def one(key, likelihoods):
        start = jnp.ones(likelihoods.shape[-1])
        return inference.hmm_posterior_sample(key, start, matrix, likelihoods)[1]

    return (jax.vmap(one)(jax.random.split(key, len(unary)), unary),)


QUERIES = {
    "logz": lambda transition, unary: (log_z(transition, unary),),
    "logz_grad": log_z_grad,
    "marginals": marginals,
    "viterbi": viterbi,
    "sample": sample,
    "dense_grad": dense_grad,
}


def compiled(function, query, inputs):
    """Ahead-of-time compilation, so that the first call only computes."""
    jax.config.update("jax_enable_x64", inputs["unary"].dtype == "float64")
    arguments = [jnp.asarray(inputs["transition"]), jnp.asarray(inputs["unary"])]
    arguments += [jax.random.PRNGKey(0)] if query == "sample" else []
    run = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(run(*arguments))


def prepare(query, inputs):
    return compiled(QUERIES[query], query, inputs)
