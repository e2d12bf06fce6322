"""Parts that several commands share: options, models, conditions, files, progress, processes."""
