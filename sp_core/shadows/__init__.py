"""Which image pixels each element of each tensor of a network depends on."""
