"""What runs a deployable model: one module per inference library."""
