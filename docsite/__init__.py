"""The documentation as a site: pages gathered from where they are read in the repository, and pages made from the code.

Knows the repository's Markdown, its notebook, Sphinx, and what the code says of itself; nothing imports it.
"""
