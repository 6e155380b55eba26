"""The commands of `prorec`, a module a topic; each has `add_to(app)`. What takes long to import waits for its use."""
