"""Sweeps over settings: Optuna studies (`morphoclip sweep`) and grids (`morphoclip train -m`), each with a table and a page."""
