"""LightningModules, one file a method; `base.Method` holds what all of them do alike."""
