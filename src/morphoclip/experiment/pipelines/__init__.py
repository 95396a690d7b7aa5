"""Sweeps over normalisation pipelines: signal against batch effect for every order of steps (docs/pipelines.md)."""
