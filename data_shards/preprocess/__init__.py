"""The chain from files on grids of their own to one study on a common grid."""
