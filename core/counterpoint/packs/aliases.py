"""Other names of components: those that papers and other libraries have for the same thing.

A name is compared without case, `-`, `_` and spaces, and that of an objective without a `loss` at its end. An alias stands
for the same formula; what is only near has a word of its own (`NEAR`), and is never put in its place.
"""

import re

ALIASES: dict[str, dict[str, str]] = {
    "objective": {
        "simclr": "nt_xent",
        "simclr_v2": "nt_xent",
        "normalized_temperature_scaled_cross_entropy": "nt_xent",
        "cpc": "info_nce",
        "multiview_nt_xent": "ntxent_multiview",
        "decoupled_contrastive": "dcl",
        "decoupled_contrastive_learning": "dcl",
        "moco_v1": "moco",
        "momentum_contrast": "moco",
        "supervised_contrastive": "supcon",
        "supervised_contrastive_learning": "supcon",
        "barlow": "barlow_twins",
        "alignment_uniformity": "align_uniform",
        "alignment_and_uniformity": "align_uniform",
        "kozachenko_leonenko": "koleo",
        "bootstrap_your_own_latent": "byol",
        "triplet_margin": "triplet",
        "facenet": "triplet",
        "image_text_matching": "matching",
        "itm": "matching",
        "sigmoid_contrastive": "siglip",
    },
    "encoder": {
        "audio_spectrogram_transformer": "audio_text.ast",
        "dynamic_graph_cnn": "points3d.dgcnn",
        "sentence_transformer": "sentence_encoder",
    },
}

NEAR: dict[str, dict[str, str]] = {
    "objective": {
        "contrastive": "there is no loss with a margin over pairs; the nearest: triplet (a margin over triplets), siglip (every pair for itself)",
        "n_pair": "the N-pair loss takes rows of any length and T 1; the nearest: {use: info_nce, direction: forward}",
        "moco_v2": "the loss of MoCo v2 is {use: moco, temperature: 0.2}",
        "moco_v3": "MoCo v3 has a predictor and no queue; the nearest: {use: info_nce, momentum: 0.99}, or byol",
        "dino": "its loss is not there; the nearest: swav (prototypes), byol (momentum encoders), selfdistill_fpt (a teacher)",
        "dinov2": "its loss is not there; the nearest: swav (prototypes), koleo (its regulariser)",
        "align": "the loss of ALIGN is {use: clip, label_smoothing: 0.1}",
        "lit": "the loss of LiT is clip, with `tune: {image: {train: none}}`; cwcl weighs by the frozen modality",
        "mixco": "it is the first part of m3col",
        "i_mix": "inputs are mixed by the view mix; the nearest objective: m3col",
        "deepcluster": "the nearest: mlcd or g_simclr, with `refresh: {cluster: {use: kmeans, clusters: 100}}`",
    },
}


def plain(name: str, kind: str = "") -> str:
    """What two spellings of one name have in common."""
    bare = re.sub(r"[-_\s]", "", name).casefold()
    return (bare.removesuffix("loss") or bare) if kind == "objective" else bare


def canonical(kind: str, name: str) -> str | None:
    """The component that an alias stands for."""
    return _found(ALIASES, kind, name)


def near(kind: str, name: str) -> str | None:
    """What there is in the place of a component that is not there."""
    return _found(NEAR, kind, name)


def _found(table: dict[str, dict[str, str]], kind: str, name: str) -> str | None:
    wanted = plain(name, kind)
    return next((value for alias, value in table.get(kind, {}).items() if plain(alias, kind) == wanted), None)
