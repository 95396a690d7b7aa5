"""Normalisation steps, one module each. A new step is a file here, or any importable module given by its dotted path.

A step module consists of functions on arrays whose rows are wells and whose columns are features:

- `fit(x, **options) -> dict of arrays`: the statistics of one group's reference wells, float64 (n, D). Optional.
- `apply(x, state, **options) -> array`: transform wells of that group, (N, D) -> (N, D'), in the dtype of x.
- `columns(names, state, **options) -> list of str`: the new feature names, if they change.
- `pooled(x, **options) -> dict of arrays`: statistics over the reference wells of all groups, passed to `fit` as `pooled`.
- `expand(fit_on, by, **options) -> list of dicts`: instead of the above, a step that stands for several others.
- `apply_together(x, groups, **options) -> array`: instead of the above, correct all wells together, given the group of
  each (N,); for methods without statistics that apply to other wells.
- `ONE_GROUP = True`: the columns change meaning, so statistics must be pooled (`by: all`).
- `TAKES_MISSING = True`: the step accepts NaN and inf.
- `OWN_DTYPE = True`: `fit` gets x in the dtype of the table, float32 or float64.
"""
