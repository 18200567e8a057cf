"""Nothing lost, nobody fooled: faults put in on purpose, and what became of them.

`python -m tests.faults` prints one table: faults injected, survived, lost, wrong verdicts.
`--full` injects every fault at every place, without it at an even share of them. The same
scenarios are tests in `test_scenarios.py`; how a scenario is written is in `table.py`.
"""
