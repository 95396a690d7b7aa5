"""Methods as LightningModules, one file each; `base.Method` holds what they share."""
