"""The pipeline as it is installed: `prorec.flows` and `prorec.tasks` are the folders at the top, linked here.

Knows nothing itself. The method alone is `prorec_core`, which needs neither Prefect nor MLflow. The names `flows` and
`tasks` stay with whoever has modules of their own by these names.
"""
