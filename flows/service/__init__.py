"""Serving over HTTP, a module a concern: schemas, batching, the model in use, metrics, the app, the process."""
