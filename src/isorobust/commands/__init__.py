"""What `make` calls besides the stages; each module is one command."""
