"""What would break a run in hours, said in seconds before the first step.

`facts` gathers what each process sees; `machines`, `folder`, `network`, `data` and `estimates` hold
the checks, pure functions of these facts; `check` runs all of it.
"""
