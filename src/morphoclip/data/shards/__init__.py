"""The dataset folder: tars of crops, their index, the fields and the manifest; written, read, checked and repacked."""
