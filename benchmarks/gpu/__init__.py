"""Proof and figures from one visit to an accelerator: parity, whole runs, shortage of memory, speed."""
