"""Recommenders that nothing is trained for, with a few numbers that validation chooses: what a model has to beat.

Knows interactions and text embeddings; knows no models.
"""
