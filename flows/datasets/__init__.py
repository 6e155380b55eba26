"""Public data sets by name: what is declared of each, and how it comes to this machine.

Knows addresses, licences and folders; what is in the files is read by `prorec_core.data`.
"""
