"""What others write, run or answer, and evalkit must not be fooled by."""
