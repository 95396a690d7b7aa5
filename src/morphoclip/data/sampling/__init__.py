"""Which crops make up a batch: groups, mixtures of datasets, samplers."""
