"""`counterpoint check`: validate a recipe and its data without training."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file, or the name of an installed one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as objective=nt_xent")


def run(args: argparse.Namespace) -> int:
    from counterpoint.packs.importing import set_aside

    with set_aside():
        from counterpoint.fit.assembly import assemble
        from counterpoint.fit.dry_run import try_out
        from counterpoint.fit.initial_weights import check_start
        from counterpoint.recipe import load

    recipe = load(args.recipe, args.overrides)
    for _, stage in recipe.stage_recipes():
        assembly = assemble(stage)
        check_start(assembly)
        try_out(assembly)
    spec = assembly.dataset.spec
    modalities = ", ".join(f"{m} ({len(p.layout())} views)" for m, p in assembly.pipelines.items())
    objectives = ", ".join(call.name for call in assembly.recipe.objectives.values())
    print(f"{recipe.source}: ok; {spec.size} samples of {recipe.data.name}; {modalities}; {objectives}")
    return 0
