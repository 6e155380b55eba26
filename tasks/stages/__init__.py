"""The stages, one a module, and what follows what."""
