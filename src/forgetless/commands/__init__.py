"""What each command of the command line does: one function a command, its signature the flags."""
