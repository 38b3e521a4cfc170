"""structlv's rsample, the distribution built anew in every call; one seed, so that its noise is known."""

from __future__ import annotations

import torch

from benchmarks.relaxed import TEMPERATURE
from structlv import GumbelCRF, LinearChain, StochasticSoftmax
from structlv.distributions.seeding import draw_seed
from structlv.ops.noise import gumbel

METHODS = {"softmax_grad": StochasticSoftmax(), "gumbel_crf_grad": GumbelCRF()}


def prepare(query, inputs):
    unary, transition, weight = (torch.from_numpy(inputs[x]) for x in ("unary", "transition", "weight"))
    unary.requires_grad_(), transition.requires_grad_()
    generator = torch.Generator()
    noise = gumbel(unary, event_dims=2, num_samples=1, seed=draw_seed(generator.manual_seed(0)))[0]

    def call():
        generator.manual_seed(0)
        chain = LinearChain(unary, transition, validate_args=False)
        parts = chain.rsample((), generator, method=METHODS[query], temperature=TEMPERATURE)
        gradients = torch.autograd.grad(parts.unary, (unary, transition), weight)
        return parts.unary, *gradients, noise

    return call
