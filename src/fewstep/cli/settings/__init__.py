"""The settings of each command: a dataclass whose fields are its options."""
