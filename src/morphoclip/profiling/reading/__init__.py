"""Any table file ▶ a profile table in canonical column names: formats, columns, wells, controls, features, joins."""
