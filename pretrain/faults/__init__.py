"""What goes wrong in a long run: signals, lost or hung ranks, bad losses, collapsed routers."""
