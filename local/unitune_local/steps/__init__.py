"""Train with a vendor that sells steps: our loop, the vendor's forward and backward passes."""
