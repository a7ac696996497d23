"""Objectives that go with a head of their own."""

from functools import partial

from counterpoint.objectives.oneencoder import OneEncoder
from counterpoint.objectives.whitenedcse import WhitenedCSE
from objectives.scenes import Case, aligned, average, dot, lse, total, view_pairs, who


def cross_entropy(o, a, b, scale):
    """-log softmax of the own key, for each aligned pair, over the keys of other samples and the own one."""
    pairs = aligned(a, b)
    for i, j in pairs:
        others = [scale * dot(a.z[i], b.z[n]) for m, n in pairs if who(o, a, m) != who(o, a, i)]
        own = scale * dot(a.z[i], b.z[j])
        yield lse([own, *others]) - own


def plain_whitenedcse(o, m, temperature=0.05):
    losses = []
    for modality in dict.fromkeys(e.modality for e in o.student):
        first, *others = [e for e in o.student if e.modality == modality and e.role != "negative"]
        terms = [average(cross_entropy(o, first, e, 1 / temperature)) for e in others if aligned(first, e)]
        losses += [total(terms)] if terms else []
    return average(losses)


def plain_oneencoder(o, m, anchor=None, modalities=("image", "text", "ecg")):
    scale, terms = m.temperature.log_scale.exp() if m.temperature.log_scale is not None else 1 / m.temperature.fixed, []
    for a, b in view_pairs(o, "across"):
        if {a.modality, b.modality} <= set(modalities) and (anchor is None or anchor in (a.modality, b.modality)):
            terms.append((average(cross_entropy(o, a, b, scale)) + average(cross_entropy(o, b, a, scale))) / 2)
    return average(terms)


THREE = ("three modalities", "three modalities, some missing")
CASES = {
    "whitenedcse": Case(WhitenedCSE, plain_whitenedcse, ("three views", "rows missing", "views and modalities")),
    "oneencoder": Case(OneEncoder, plain_oneencoder, ("two modalities", *THREE)),
    "oneencoder, anchor": Case(partial(OneEncoder, anchor="text"), partial(plain_oneencoder, anchor="text"), THREE),
    "oneencoder, modalities": Case(
        partial(OneEncoder, modalities=["image", "ecg"]), partial(plain_oneencoder, modalities=("image", "ecg")), THREE
    ),
    "oneencoder released": Case(partial(OneEncoder, learnable=False), plain_oneencoder, ("two modalities",)),
}
