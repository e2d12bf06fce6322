"""What each command can be asked for: one dataclass a command, whose fields are its options."""
