"""The core's own components: kind -> name -> lazy target."""

TABLES: dict[str, dict[str, str]] = {
    "dataset": {
        "manifest": "counterpoint.data.manifest:manifest",
        "folder": "counterpoint.data.folder:folder",
    },
    "sampler": {"shuffle": "counterpoint.data.plan:shuffle", "by_group": "counterpoint.data.plan:by_group"},
    "head": {
        "mlp": "counterpoint.heads:MLP",
        "linear": "counterpoint.heads:Linear",
        "identity": "counterpoint.heads:Identity",
    },
    "reader": {"arrays": "counterpoint.data.arrays:Arrays", "text": "counterpoint.data.text:Text"},
    "encoder": {
        "text_transformer": "counterpoint.encoders.text_transformer:TextTransformer",
        "sentence_encoder": "counterpoint.encoders.sentence_encoder:sentence_encoder",
        "length": "counterpoint.encoders.length:Length",
        "bm25": "counterpoint.encoders.bm25:BM25",
    },
    "view": {
        "copies": "counterpoint.views.copies:Copies",
        "token_mask": "counterpoint.views.tokens:TokenMask",
        "token_delete": "counterpoint.views.tokens:TokenDelete",
        "token_crop": "counterpoint.views.tokens:TokenCrop",
    },
    "objective": {
        "info_nce": "counterpoint.objectives.info_nce:InfoNCE",
        "nt_xent": "counterpoint.objectives.nt_xent:NTXent",
        "clip": "counterpoint.objectives.clip:CLIP",
        "siglip": "counterpoint.objectives.siglip:SigLIP",
        "moco": "counterpoint.objectives.moco:MoCo",
        "byol": "counterpoint.objectives.byol:BYOL",
        "simsiam": "counterpoint.objectives.simsiam:SimSiam",
        "barlow_twins": "counterpoint.objectives.redundancy:BarlowTwins",
        "vicreg": "counterpoint.objectives.redundancy:VICReg",
        "supcon": "counterpoint.objectives.supcon:SupCon",
        "align_uniform": "counterpoint.objectives.uniformity:AlignUniform",
        "koleo": "counterpoint.objectives.uniformity:KoLeo",
    },
    "optimizer": {name: f"counterpoint.optim:{name}" for name in ("adamw", "adam", "sgd")},
    "schedule": {name: f"counterpoint.optim:{name}" for name in ("cosine", "constant")},
    "evaluator": {
        "knn": "counterpoint.evaluate.knn:KNN",
        "linear_probe": "counterpoint.evaluate.linear_probe:LinearProbe",
        "retrieval": "counterpoint.evaluate.retrieval:Retrieval",
        "geometry": "counterpoint.evaluate.geometry:Geometry",
    },
}
