"""`python -m prorec`: the command line. Knows nothing else."""

from prorec.flows.cli import main

main()
