"""What every method shares: schedules, parameter groups, seeding, guards, monitors, callbacks."""
