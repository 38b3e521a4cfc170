"""Neural and compound PCFGs: grammars whose probabilities are computed by a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlv.distributions import PCFG, TreePosterior
from structlv.models.base import Elbo
from structlv.models.grammar import GrammarModel, ResidualTower, require_sizes, xavier
from structlv.models.lookup import gather_log_softmax
from structlv.models.recurrent import all_lengths, run_lstm


class _GrammarNetwork(nn.Module):
    """Scores of the start, of rules and of preterminals, given a vector z for each sentence (or none).

    With embeddings of symbols e and towers f, g: root f([start; z]); rules A -> y z linear in [e_A; z];
    preterminals g([e_T; z]). What does not depend on z is computed once for a batch: of the rules' map only
    W_z z is left for each sentence, S^2 numbers and not NT S^2 products of width `dim`.
    """

    def __init__(self, nonterminals: int, preterminals: int, vocab_size: int, dim: int, latent: int) -> None:
        super().__init__()
        symbols = nonterminals + preterminals
        self.start = nn.Parameter(torch.randn(1, dim))
        self.nonterminal = nn.Parameter(torch.randn(nonterminals, dim))
        self.preterminal = nn.Parameter(torch.randn(preterminals, dim))
        self.root = nn.Sequential(ResidualTower(dim + latent, dim), nn.Linear(dim, nonterminals))
        self.rule = nn.Linear(dim, symbols * symbols)
        self.rule_of_latent = nn.Linear(latent, symbols * symbols, bias=False) if latent else None
        self.emission = ResidualTower(dim + latent, dim)
        self.word = nn.Linear(dim, vocab_size)
        self.symbols = symbols
        xavier(self)

    def root_logits(self, z: Tensor | None = None) -> Tensor:
        return self.root(_beside(self.start, z)).squeeze(-2)

    def rule_logits(self, z: Tensor | None = None) -> Tensor:
        scores = self.rule(self.nonterminal)
        if self.rule_of_latent is not None and z is not None:
            scores = scores + self.rule_of_latent(z).unsqueeze(-2)
        return scores.unflatten(-1, (self.symbols, self.symbols))

    def hidden(self, z: Tensor | None = None) -> Tensor:
        """(*b, T, dim), of which ``word`` makes the scores of words."""
        return self.emission(_beside(self.preterminal, z))


def _beside(embedding: Tensor, z: Tensor | None) -> Tensor:
    """[e; z] for every symbol and sentence: (m, dim) and (*b, latent) to (*b, m, dim + latent)."""
    if z is None:
        return embedding
    shape = (*z.shape[:-1], len(embedding), -1)
    return torch.cat([embedding.expand(*shape), z.unsqueeze(-2).expand(*shape)], -1)


class NeuralPCFG(GrammarModel):
    """A PCFG whose probabilities are softmaxes over scores from embeddings of symbols and small networks.

    p(tree, x) is a product of root, rule (A -> y z) and word probabilities; symbols 0..NT-1 are
    nonterminals, NT..NT+T-1 preterminals. One grammar serves all sentences.

    Args: `vocab_size` V; `num_nonterminals` NT; `num_preterminals` T; `dim` of embeddings and networks.
    Cost of `log_prob` of a sentence of n words: O(n^3 NT^2 + n^2 NT^3 + n NT T (NT + T)) time, O(n^2 NT)
    memory.
    Source: Kim, Dyer & Rush, "Compound Probabilistic Context-Free Grammars for Grammar Induction", 2019,
    section 2.1 and appendix A.1 (the published sizes are the defaults).
    """

    def __init__(
        self, vocab_size: int, *, num_nonterminals: int = 30, num_preterminals: int = 60, dim: int = 256
    ) -> None:
        sizes = {"num_nonterminals": num_nonterminals, "num_preterminals": num_preterminals, "dim": dim}
        require_sizes(vocab_size=vocab_size, **sizes)
        super().__init__(vocab_size=vocab_size, **sizes)
        self.network = _GrammarNetwork(num_nonterminals, num_preterminals, vocab_size, dim, 0)

    def distribution(self) -> PCFG:
        """The grammar itself, batch_shape (): build it once for a batch and ask it everything."""
        net = self.network
        return PCFG(net.root_logits(), net.rule_logits(), net.word(net.hidden()))

    def log_prob(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x) in nats, summed over all trees: x (*b, n) word indices, lengths (*b) -> (*b)."""
        return self.distribution().log_prob(x, lengths=lengths)

    forward = log_prob

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> TreePosterior:
        """p(tree | x): x (*b, n), lengths (*b)."""
        return self.distribution().posterior(x, lengths=lengths)


class CompoundPCFG(GrammarModel):
    """A PCFG whose probabilities depend on a Gaussian vector z of each sentence, marginalised variationally.

    z ~ N(0, I); x ~ PCFG(grammar(z)). The trees are summed out exactly, z by amortised inference: q(z | x)
    is a diagonal Gaussian from the maximum over time of a bidirectional LSTM.

    Args: as `NeuralPCFG`; `latent` dimension of z; `word_dim` and `encoder_dim` of the inference network.
    Cost of `elbo` of a sentence: that of a PCFG with rules of its own, and O(T V dim) for the words'
    normaliser; never a (b, T, V) table. Source: Kim, Dyer & Rush 2019, sections 2.2 and 3, appendix A (the
    published sizes are the defaults).
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        num_nonterminals: int = 30,
        num_preterminals: int = 60,
        dim: int = 256,
        latent: int = 64,
        word_dim: int = 512,
        encoder_dim: int = 512,
    ) -> None:
        sizes = {
            "num_nonterminals": num_nonterminals,
            "num_preterminals": num_preterminals,
            "dim": dim,
            "latent": latent,
            "word_dim": word_dim,
            "encoder_dim": encoder_dim,
        }
        require_sizes(vocab_size=vocab_size, **sizes)
        super().__init__(vocab_size=vocab_size, **sizes)
        self.network = _GrammarNetwork(num_nonterminals, num_preterminals, vocab_size, dim, latent)
        self.embedding = nn.Embedding(vocab_size, word_dim)
        self.encoder = nn.LSTM(word_dim, encoder_dim, bidirectional=True, batch_first=True)
        self.gaussian = nn.Linear(2 * encoder_dim, 2 * latent)
        for module in (self.embedding, self.encoder, self.gaussian):
            xavier(module)

    def infer(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance (b, latent) of q(z | x): x (b, n), lengths (b)."""
        states = run_lstm(self.encoder, self.embedding(x), all_lengths(x, lengths), padding=-torch.inf)
        mean, log_variance = self.gaussian(states.amax(-2)).chunk(2, -1)
        return mean, log_variance

    def elbo(self, x: Tensor, lengths: Tensor | None = None) -> Elbo:
        """log p(x | z) of one draw of z (reparameterised), and KL(q || prior): x (b, n) -> two of (b)."""
        mean, log_variance = self.infer(x, lengths)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        kl = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(-1)
        return Elbo(self.given(z, x, lengths).log_partition(), kl)

    forward = elbo

    def given(self, z: Tensor, x: Tensor, lengths: Tensor | None = None) -> TreePosterior:
        """The trees of x under the grammar of z (b, latent), unnormalised: its log Z is log p(x | z)."""
        net = self.network
        unary = gather_log_softmax(net.hidden(z), net.word.weight, net.word.bias, x)
        rules = net.rule_logits(z).flatten(-2).log_softmax(-1).unflatten(-1, (net.symbols, net.symbols))
        return TreePosterior(net.root_logits(z).log_softmax(-1), rules, unary, lengths=lengths)

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> TreePosterior:
        """p(tree | x, z) at the mean of q(z | x): x (b, n), lengths (b)."""
        return self.given(self.infer(x, lengths)[0], x, lengths)
