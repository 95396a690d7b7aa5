"""Shared by all methods: schedules, parameter groups, seeding, guards, monitors, callbacks."""
