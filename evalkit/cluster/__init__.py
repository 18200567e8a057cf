"""One run, or one sampling job, over many processes and machines: a crew of workers.

The driver plans, counts and journals as it does by itself; a case (or a call to be judged)
goes to a worker, which has prepared the same plan, and comes back as the line that the
journal takes. What workers spend and wait for together, `shared` keeps; `crew` hands out the
work, and again what a dead worker had; `jobs` is what workers are told; only `on_ray` knows Ray.
"""
