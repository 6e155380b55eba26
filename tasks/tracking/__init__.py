"""MLflow: runs, their metrics and data sets, and the stored artifacts. Knows no stage's meaning."""
