"""A graph from two tables: what is read, and what is said of a mistake."""

import pytest
import torch

from counterpoint.errors import DataError
from counterpoint_graphs.tables import FromCSV

NODES = "id,field,age,papers\nada,maths,36,12\nbo,maths,40,3\ncy,art,29,0\ndi,,31,5\n"
EDGES = "source,target\nada,bo\nbo,ada\ncy,di\ncy,cy\n"


def read(folder, nodes=NODES, edges=EDGES, **options):
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return FromCSV(nodes=str(folder / "nodes.csv"), edges=str(folder / "edges.csv"), **options)


def test_features_labels_and_edges_are_read(tmp_path):
    data = read(tmp_path, labels=["field"], holdout=0.0)
    graph = data.spec.modalities["node"]["graph"]
    assert graph.edges.tolist() == [[0, 2], [1, 3]] and graph.x[0].tolist() == [36.0, 12.0]
    assert data.labels["field"].tolist() == [1, 1, 0, -1] and data.spec.labels["field"] == 2
    assert torch.equal(data[2].inputs["node"], torch.tensor([2]))


def test_a_column_says_which_nodes_are_held_out(tmp_path):
    nodes = "id,split,age\na,train,1\nb,test,2\nc,train,3\n"
    assert read(tmp_path, nodes, "source,target\na,b\n", split="test").nodes.tolist() == [1]


MISTAKES = [
    (NODES.replace("40", "forty"), EDGES, "nodes.csv:3: age: a feature is a number; got 'forty'"),
    (NODES.replace("cy,", "bo,"), EDGES, "nodes.csv:4: id 'bo' is on an earlier line, too"),
    (NODES, EDGES.replace("cy,di", "cy,dee"), "edges.csv:4: there is no node 'dee'"),
    (NODES, EDGES.replace("target", "targt"), "edges.csv: there is no column 'target'; did you mean 'targt'?"),
]


def test_a_mistake_is_told_with_its_line(tmp_path):
    for nodes, edges, told in MISTAKES:
        with pytest.raises(DataError) as error:
            read(tmp_path, nodes, edges, labels=["field"])
        assert told in str(error.value)
