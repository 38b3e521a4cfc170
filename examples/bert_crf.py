"""A CRF on a Hugging Face encoder: token classification in which neighbouring labels know of one another.

The encoder is a small BERT with random weights, made from a configuration alone: nothing is downloaded. In
your own code write `AutoModel.from_pretrained(...)` instead, and `structlv.models.CRF` stays as it is: it has
the interface of pytorch-crf. Labels of -100, which Hugging Face's collators write into the padding, may stay.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from structlv.distributions import tagging_constraints
from structlv.models import CRF

LABELS = ["O", "B-NAME", "I-NAME"]
WORDS, OPENING = 40, 1  # word numbers of a toy language; word 1 announces a name of two or three words


class BertCRF(nn.Module):
    """Encoder, linear head, CRF. `forward` gives the loss where labels are given, else the best labels."""

    def __init__(self, encoder: nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, labels)
        self.crf = CRF(labels, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        emissions = self.head(hidden)
        if labels is not None:
            return -self.crf(emissions, labels, attention_mask, reduction="token_mean")
        chain = self.crf.distribution(emissions, attention_mask)
        return chain.condition(**tagging_constraints(LABELS)._asdict()).argmax()  # (b, n), -1 in the padding


def encoder(width: int = 32) -> nn.Module:
    """A BERT of two layers with random weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=32,
    )
    return BertModel(config, add_pooling_layer=False)


def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words (b, n), attention mask (b, n), labels (b, n) with -100 in the padding."""
    lengths = torch.randint(6, 13, (size,))
    words = torch.randint(2, WORDS, (size, 12))
    labels = torch.zeros(size, 12, dtype=torch.int64)
    for i in range(size):
        start = int(torch.randint(0, 3, ()))
        end = start + 3 + int(words[i, start + 1] % 2)  # an odd first word: a name of three words
        words[i, start] = OPENING
        labels[i, start + 1 : end] = torch.tensor([1, 2, 2])[: end - start - 1]
    padding = torch.arange(12) >= lengths[:, None]
    return words.masked_fill(padding, 0), (~padding).long(), labels.masked_fill(padding, -100)


def main(steps: int = 150) -> float | None:
    """Train, return the share of right labels on new sentences; None where transformers is not installed."""
    if find_spec("transformers") is None:
        print("skipped: transformers is not installed (pip install transformers)")
        return None
    torch.manual_seed(0)
    model = BertCRF(encoder(), 32, len(LABELS))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        words, mask, labels = batch(32)
        loss = model(words, mask, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item():.3f} nats per word")
    model.eval()
    words, mask, labels = batch(200)
    with torch.no_grad():
        found = model(words, mask)
    accuracy = (found == labels)[mask.bool()].double().mean().item()
    print(
        " ".join(
            f"{w}/{LABELS[y]}" for w, y in zip(words[0].tolist(), found[0].tolist(), strict=True) if y >= 0
        )
    )
    print(f"accuracy on new sentences: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
