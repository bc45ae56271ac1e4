"""The optimizer step through DeepSpeed, and what the processes of a run tell each other."""
