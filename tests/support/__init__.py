"""What several tests share: models with known answers, small networks and pipelines, ways to run a command."""
