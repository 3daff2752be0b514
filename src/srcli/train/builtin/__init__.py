"""Training of the built-in network: photographs, damage, teachers, losses, trainer."""
