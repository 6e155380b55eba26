"""What is done to a store between runs: closing what died, deleting what nothing keeps."""
