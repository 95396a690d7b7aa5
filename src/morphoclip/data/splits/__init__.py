"""Who is held out: by perturbation, scaffold, plate, batch or source, by hashes that depend on nothing else."""
