"""Everything that Counterpoint expects of a pack, its recipes and its components."""

from counterpoint.testing import Example, check_pack


def test_the_pack_keeps_the_contract(tmp_path):
    nodes = [f"{i},{'ab'[i % 2]},{i / 7},{i % 3}" for i in range(20)]
    edges = [f"{i},{(i * k + 1) % 20}" for i in range(20) for k in (1, 3)]
    (tmp_path / "nodes.csv").write_text("\n".join(["id,label,age,papers", *nodes]) + "\n")
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *edges]) + "\n")
    files = (f"data.nodes={tmp_path / 'nodes.csv'}", f"data.edges={tmp_path / 'edges.csv'}")
    report = check_pack("graphs", {"recipe from_csv": Example(overrides=files)})
    assert not report.untried
