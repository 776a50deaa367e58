"""What a run can target."""
