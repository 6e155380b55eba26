"""What users write, checked: experiments, variants, and spaces of a tuning. Runs nothing."""
