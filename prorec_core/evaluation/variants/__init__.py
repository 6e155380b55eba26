"""Several evaluations of one data set side by side: variants of an experiment, each with several seeds."""
