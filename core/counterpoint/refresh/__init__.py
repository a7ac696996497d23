"""Columns of the data set that are made from its embeddings between epochs: pseudo labels and tables of neighbours."""
