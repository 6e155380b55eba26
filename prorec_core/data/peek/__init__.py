"""What data look like before anything is configured: guesses, told as guesses, and what they would lead to."""
