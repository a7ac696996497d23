"""What the pack for point clouds contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {
        "pointnet": "counterpoint_points3d.encoders.pointnet:PointNet",
        "dgcnn": "counterpoint_points3d.encoders.dgcnn:DGCNN",
        "shape_distribution": "counterpoint_points3d.encoders.distribution:ShapeDistribution",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "rotate": "counterpoint_points3d.views.moves:Rotate",
        "flip": "counterpoint_points3d.views.moves:Flip",
        "scale": "counterpoint_points3d.views.moves:Scale",
        "translate": "counterpoint_points3d.views.moves:Translate",
        "jitter": "counterpoint_points3d.views.moves:Jitter",
        "dropout": "counterpoint_points3d.views.selections:Dropout",
        "crop": "counterpoint_points3d.views.selections:Crop",
        "subsample": "counterpoint_points3d.views.selections:Subsample",
    }


@hookimpl
def counterpoint_readers():
    return {"points": "counterpoint_points3d.readers.points:Points"}


@hookimpl
def counterpoint_datasets():
    return {
        "furniture": "counterpoint_points3d.data.furniture:Furniture",
        "modelnet": "counterpoint_points3d.data.modelnet:modelnet",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
