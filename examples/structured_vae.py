"""Two structured VAEs of a nursery rhyme: a chain of states behind its words, and a tree over them.

The latent of a sentence is a structure, so the encoder gives a distribution over structures (a CRF), and KL
from the prior is exact; only the reconstruction has to be estimated, here by the score function for the chain
and through relaxed trees for the tree. Kim, Wiseman & Rush 2018, section 6.4.2. (A rhyme is too little text
to learn a language from: what the two see in it is shown, not judged.)

Ends with a picture of states and tree; ``python examples/structured_vae.py FILE.png`` writes it to a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from structlv import to_brackets
from structlv.data import Tree, Vocabulary, parse_tree
from structlv.learning.estimators import Relaxed, ScoreFunction
from structlv.models import ChainVAE, StructuredVAE, TreeVAE
from structlv.viz import plot_tree, tree_text

# "This is the house that Jack built", traditional, printed in 1755: who did what to whom
WHO = """the malt|lay in|the house that jack built
the rat|ate|the malt
the cat|killed|the rat
the dog|worried|the cat
the cow with the crumpled horn|tossed|the dog
the maiden all forlorn|milked|the cow
the man all tattered and torn|kissed|the maiden
the priest all shaven and shorn|married|the man
the cock that crowed in the morn|waked|the priest
the farmer sowing his corn|kept|the cock"""
SHOWN = "this is the dog that worried the cat that killed the rat"
WARM_UP = 40  # steps in which the KL comes to count: at first the latent has to prove useful


def rhyme() -> list[list[str]]:
    """The lines, two or one of its verbs at a time, those of up to twelve words."""
    rows = [line.split("|") for line in WHO.splitlines()]
    short = {row[0]: " ".join(row[0].split()[:2]) for row in rows}
    one = [f"this is {a} that {verb} {b}" for a, verb, b in rows]
    two = [
        f"this is {short[a]} that {v} {b} that {w} {c}"
        for (a, v, b), (_, w, c) in zip(rows[1:], rows, strict=False)
    ]
    sentences = [sentence.split() for sentence in one + two]
    return [words for words in sentences if len(words) <= 12]


def fit(model: StructuredVAE, x: Tensor, lengths: Tensor, steps: int) -> list[float]:
    """The bound in nats per word, from hard samples, every fifth of the way."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    curve = []
    for step in range(steps):
        elbo = model.elbo(x, lengths)
        loss = -(elbo.reconstruction - min(1.0, step / WARM_UP) * elbo.kl).sum() / lengths.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % (steps // 5) == 0:
            with torch.no_grad():
                curve.append((model.elbo(x, lengths).bound.sum() / lengths.sum()).item())
    return curve


def draw(words: list[str], states: Tensor, tree: Tree, path: Path) -> None:
    """Probabilities of states, and the tree."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    left.imshow(states.T.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    left.set_xticks(range(len(words)), words, rotation=60, ha="right", fontsize=8)
    left.set_ylabel("state")
    left.set_title("q(state | sentence)", fontsize=10)
    plot_tree(tree, ax=right, title="the tree of most expected constituents")
    figure.savefig(path)


def main(picture: Path | None = None, steps: int = 100) -> dict[str, list[float]]:
    """Train both; returns their bounds in nats per word."""
    torch.manual_seed(0)
    sentences = rhyme()
    vocabulary = Vocabulary.build(sentences, min_count=1)
    encoded = [vocabulary.encode(s) for s in sentences]
    x, lengths = pad_sequence(encoded, batch_first=True), torch.tensor([len(s) for s in sentences])
    chain = ChainVAE(len(vocabulary), num_states=6, dim=24).use(ScoreFunction(4))
    tree = TreeVAE(len(vocabulary), num_labels=3, dim=24, word_dropout=0.3).use(Relaxed(temperature=0.5))
    curves = {}
    for name, model in (("chain", chain), ("tree", tree)):
        curves[name] = fit(model, x, lengths, steps)
        with torch.no_grad():
            kl = model.elbo(x, lengths).kl.sum() / lengths.sum()
        print(f"{name}: bound in nats per word {', '.join(f'{v:.2f}' for v in curves[name])}; KL {kl:.2f}")

    words = SHOWN.split()
    one = vocabulary.encode(words).unsqueeze(0)
    with torch.no_grad():
        states, q = chain.eval().encode(one), tree.eval().encode(one)
        print("\n" + " ".join(f"{w}/{z}" for w, z in zip(words, states.argmax()[0].tolist(), strict=True)))
        tags = chain.encode(x, lengths).argmax()  # -1 in padding
        for state in range(6):
            seen = x[tags == state].bincount(minlength=len(vocabulary))
            print(f"state {state}:", *vocabulary.decode(seen.topk(min(6, int((seen > 0).sum()))).indices))
        brackets = to_brackets(q.decode(labelled=True)[0], ["a", "b", "c"], words)
    print(f"\nentropy of the tree: {q.entropy().item():.2f} nats, of all trees' {q.log_count().item():.2f}")
    print(tree_text(parse_tree(brackets)))
    if picture is not None:
        draw(words, states.marginals().unary[0].detach(), parse_tree(brackets), picture)
    return curves


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
