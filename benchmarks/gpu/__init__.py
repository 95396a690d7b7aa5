"""The sections of `benchmarks.on_gpu`."""
