"""CoCa: a contrast between modalities, and a caption of the one written in the words of the other."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoint.batch import Outputs
from counterpoint.errors import ComponentError, suggest
from counterpoint.markers import Facts
from counterpoint.modules import NamedModules
from counterpoint.objectives.clip import CLIP
from counterpoint.objectives.mechanisms.aligned import places
from counterpoint.objectives.mechanisms.decoder import Decoder
from counterpoint.objectives.mechanisms.facts import fact
from counterpoint.objectives.objective import Needs


class CoCa(CLIP):
    """The loss of CoCa (Yu et al., TMLR 2022, eqs. 1-4): contrastive captioner.

        loss = contrast_weight * L_con + caption_weight * L_cap

    L_con is the loss of `clip`, the mean of two directions. For a view of another modality with tokens m (M, C), and a text
    with ids w_0 ... w_T of the same sample,

        L_cap = sum over texts and t >= 1 of -log p(w_t | w_0 ... w_{t-1}, m)  /  the number of those tokens

    over all real tokens of the batch, padding left out; w_0 is given, not predicted. With several pairs of views, the mean
    over pairs. p is a causal transformer that belongs to the objective: `alone` layers that see the text only, then
    `crossing` layers with cross-attention to m. Nothing is detached: encoders that give the tokens learn from the caption.

    text    the modality that has a vocabulary, when there are several
    weights the paper's code is not public; 1 and 2 are its text's (section 4.1)

    Departs from the paper, whose text embedding comes from the first half of the decoder (and whose image tokens from an
    attentional pooler): here the recipe's text encoder makes it, and the first half of the decoder is apart from it. All
    ranks caption the whole batch, which is exact, and more work than each its own part.
    """

    def __init__(
        self,
        *,
        facts: Facts,
        text: str | None = None,
        contrast_weight: float = 1.0,
        caption_weight: float = 2.0,
        temperature: float = 0.07,
        learnable: bool = True,
        width: int = 256,
        alone: int = 3,
        crossing: int = 3,
        heads: int = 4,
    ):
        super().__init__(temperature=temperature, learnable=learnable)
        self.text = text_of("coca", facts, text)
        self.contrast_weight, self.caption_weight = contrast_weight, caption_weight
        vocabulary = facts[self.text]["vocabulary"]
        others = {m: fact("coca", m, known, "token_width") for m, known in facts.items() if m != self.text}
        made: dict[str, nn.Module] = {
            m: Decoder(vocabulary, c, width, alone, crossing, heads) for m, c in others.items()
        }
        self.decoders = NamedModules(made)

    def needs(self) -> Needs:
        features = frozenset({"tokens", "input"})
        of = {self.text: frozenset({"input"}), **dict.fromkeys(self.decoders, frozenset({"tokens"}))}
        return Needs(pairs="across", batch=2, modalities=(self.text, *self.decoders), features=features, of=of)

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        contrast, parts = super().loss(outputs)
        captions = [self._caption(pair) for pair in outputs.pairs(self.text)]
        captions = [loss for loss in captions if loss is not None]
        caption = sum(captions) / len(captions) if captions else outputs.zero()
        parts = {**parts, "contrast": contrast.detach(), "caption": caption.detach()}
        return self.contrast_weight * contrast + self.caption_weight * caption, parts

    def _caption(self, pair) -> Tensor | None:
        """The mean over the tokens of all texts of a pair; None when there is none to predict."""
        text, other = pair.query, pair.key
        if other.tokens is None or text.input is None:
            return None
        i, j = places(pair)
        mask = None if other.mask is None else other.mask[j]
        decoder = self.decoders[other.modality]
        total, count = decoder.surprise(text.input[i], text.input_mask[i], other.tokens[j], mask)
        return total.sum() / count.sum().clamp(min=1)


def text_of(who: str, facts: Facts, text: str | None) -> str:
    """The modality whose data have a vocabulary; ComponentError when that is not one."""
    found = [name for name, known in facts.items() if known.get("vocabulary")]
    if text is None and len(found) != 1:
        raise ComponentError(
            f"objective {who!r}: which modality is the text? those with a vocabulary: {', '.join(found) or 'none'}"
        )
    if text is not None and text not in found:
        raise ComponentError(f"objective {who!r}: {text!r} is no modality with a vocabulary{suggest(text, found)}")
    return text or found[0]
