"""Parts of `gliomoe evaluate`: cases measured, groups, figures over cases, runs compared."""
