"""Normalisation steps, one module each. A new step is one file here (or any importable module, named with its dots).

A step module is made of plain functions over arrays; rows are wells, columns features:

- `fit(x, **options) -> dict of arrays`: the statistics of one group's reference wells, float64 (n, D). Absent when
  nothing is fitted.
- `apply(x, state, **options) -> array`: any wells of that group, (N, D) -> (N, D'), in x's own dtype.
- `columns(names, state, **options) -> list of str`: the new feature names; only where they change.
- `pooled(x, **options) -> dict of arrays`: statistics over every group's reference wells, handed to `fit` as `pooled`.
- `expand(fit_on, by, **options) -> list of dicts`: instead of all these, a step that is short for several.
- `apply_together(x, groups, **options) -> array`: instead of these, all wells at once with the group of each (N,); for
  methods that correct the wells they see and keep nothing for others.
- `ONE_GROUP = True`: the columns change meaning, so statistics must be pooled (`by: all`).
- `TAKES_MISSING = True`: NaN and inf are let through to it.
- `OWN_DTYPE = True`: `fit` gets x in the table's own dtype, float32 or float64.
"""
