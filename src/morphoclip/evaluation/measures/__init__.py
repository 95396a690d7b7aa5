"""Scores besides average precision: neighbours, clustering, batch effects, relationships, retrieval, probes."""
