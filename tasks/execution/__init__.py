"""What a stage is, and how one is run: cache key, Prefect task, MLflow run, artifact. Knows no stage's work."""
