"""Solutions written in few waves of picked frequencies."""
