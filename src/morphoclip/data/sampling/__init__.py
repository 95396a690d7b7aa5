"""The choice of crops for each batch: groups, mixtures of datasets, samplers."""
