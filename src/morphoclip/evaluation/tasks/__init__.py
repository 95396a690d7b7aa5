"""Which profiles ask which question, and the controls beside it."""
