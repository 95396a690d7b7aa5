"""Dataset ▶ batches: loaders, data modules, streams, cached features."""
