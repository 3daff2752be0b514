"""What can be trained. Each system gives the trainer its networks, its losses and its files; none knows the others."""
