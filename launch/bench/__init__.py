"""What `gliomoe bench` measures: the same work by this framework and by others, in turns."""
