"""The dataset folder (tars of crops, index, fields, manifest): writing, reading, verifying, repacking."""
