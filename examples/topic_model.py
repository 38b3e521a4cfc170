"""Topics: documents of mixed content taken apart, without a label.

Documents are simulated, bags of 40 words from six themes; three words ("bank", "pitch", "light") belong to
two themes each. Kim, Wiseman & Rush 2018, section 4.2: p(word | z) = sum_k z_k beta[k, word], z on the
simplex.

Ends with a picture of the topics; ``python examples/topic_model.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from structlv.data import Vocabulary
from structlv.models import NaiveBayes, NeuralTopicModel

THEMES = {
    "river": "bank water boat fish bridge flood reed",
    "money": "bank loan price market debt coin trade",
    "music": "pitch song violin choir tune drum rhythm",
    "football": "pitch goal referee team coach fans striker",
    "painting": "light colour brush canvas portrait oil frame",
    "physics": "light energy wave mass force atom field",
}
DOCUMENTS, WORDS = 600, 40
STEPS, BATCH = 300, 150


def true_topics(vocabulary: Vocabulary) -> Tensor:
    """(K, V), uniform over the words of each theme."""
    beta = torch.zeros(len(THEMES), len(vocabulary))
    for row, words in zip(beta, THEMES.values(), strict=True):
        row[vocabulary.encode(words.split())] = 1.0
    return beta / beta.sum(-1, keepdim=True)


def classes(x: Tensor, size: int) -> Tensor:
    """Words of the classes of Naive Bayes, (K, V), the likeliest of three starts: where topics start.

    From topics at random, amortised learning often ends with several copies of one.
    """
    models = []
    for _ in range(3):
        models.append(NaiveBayes(len(THEMES), size))
        optimiser = torch.optim.Adam(models[-1].parameters(), lr=0.1)
        for _ in range(60):
            optimiser.zero_grad()
            (-models[-1].log_prob(x).mean()).backward()
            optimiser.step()
    return max(models, key=lambda m: m.log_prob(x).mean().item()).word_logits.detach()


def learn(model: NeuralTopicModel, x: Tensor) -> None:
    """Climb the evidence lower bound; the KL comes to count in the first half."""
    start = classes(x, model.topic_logits.shape[-1])
    with torch.no_grad():
        model.topic_logits.copy_(start)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02, betas=(0.9, 0.99))
    for step in range(STEPS):
        elbo = model.elbo(x[torch.randperm(len(x))[:BATCH]])
        loss = -(elbo.reconstruction - min(1.0, 2 * step / STEPS) * elbo.kl).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def draw(beta: Tensor, vocabulary: Vocabulary, path: Path) -> None:
    """Topics and words as a heat map."""
    from matplotlib.figure import Figure

    words = list(dict.fromkeys(" ".join(THEMES.values()).split()))
    figure = Figure(figsize=(9, 2.8), dpi=130, layout="constrained")
    ax = figure.subplots()
    ax.imshow(beta[:, vocabulary.encode(words)].numpy(), cmap="Blues", vmin=0, aspect="auto")
    ax.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    ax.set_yticks(range(len(beta)), [f"topic {k}" for k in range(len(beta))], fontsize=8)
    figure.savefig(path)


def main(picture: Path | None = None) -> int:
    """Learn; returns how many themes have a topic that shares at least 80 % of its probability with them."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([words.split() for words in THEMES.values()], min_count=1)
    truth = true_topics(vocabulary)
    share = torch.distributions.Dirichlet(torch.full((len(THEMES),), 0.1)).sample((DOCUMENTS,))
    x = (share @ truth).multinomial(WORDS, replacement=True)
    model = NeuralTopicModel(len(vocabulary), num_topics=len(THEMES), encoder_dim=64)
    learn(model, x)
    with torch.no_grad():
        elbo, beta = model.elbo(x), model.topics()
        floor = -(share @ truth).gather(1, x).log().mean().item()
        nats = -elbo.bound.mean().item() / WORDS
        print(f"{nats:.2f} nats per word at most, {floor:.2f} knowing the mixtures")
        mixed = int((share.max(-1).values - 0.5).abs().argmin())
        z = model.encode(x[mixed : mixed + 1]).sample((200,)).mean(0)[0]
    overlap = torch.minimum(beta.unsqueeze(0), truth.unsqueeze(1)).sum(-1).max(-1).values
    for k, words in enumerate(model.typical_words(7)):
        print(f"topic {k}: {'#' * round(20 * z[k].item()):20} {' '.join(vocabulary.decode(words))}")
    real = [f"{s:.0%} {t}" for s, t in zip(share[mixed].tolist(), THEMES, strict=True) if s > 0.05]
    print(f"(bars: one document, which is really {', '.join(real)})")
    found = int((overlap > 0.8).sum())
    print(f"{found} of {len(THEMES)} themes found")
    if picture is not None:
        draw(beta, vocabulary, picture)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
