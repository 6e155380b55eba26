"""What computes a model of sentence-transformers. Each module knows one library that does; none knows of items."""
