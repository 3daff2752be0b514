"""Measurements on an accelerator: parity with the CPU, whole runs, little memory, speed."""
